// The page of weftctl in a real Chromium: cells counted in the DOM, sentences read, 200 nodes drawn, keys, the
// accessibility tree, and that no request leaves loopback.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Browser, Page, SerializedAXNode } from 'puppeteer-core'
import { documentOf } from '../../daemon/ctl/page/document.ts'
import type { Asked } from '../../daemon/ctl/page/facts.ts'
import { pageSources } from '../../daemon/ctl/page/sources.ts'
import { AT, type Bad, change, factsOf, nameOf, numbers, peersOf, statusOf } from '../unit/ctl/page-scene.ts'
import {
  countOf,
  openPage,
  pictures,
  refreshed,
  serveCluster,
  servePages,
  startBrowser,
  textOf,
  textsOf,
  withoutBrowser
} from './browser.ts'
import { Cluster } from './cluster.ts'
import { until } from './run.ts'

const HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
const condition = {
  ...{ code: 'FORWARD_DROPPED', severity: 'warning', blocks: [], since: AT },
  sentence: `a rule drops packets of pods: ${HOSTILE}. Cure: delete the rule`
}

const healthy = (nodes: number): readonly Asked[] =>
  numbers(nodes).map((n) => ({ name: nameOf(n), facts: factsOf(n, nodes) }))

/** Five nodes: one path lost one way, one for large packets, one not asked; one node silent, one with a condition. */
function faulty(): readonly Asked[] {
  const bad: Readonly<Record<number, Bad>> = {
    2: { 4: 'out-lost' },
    4: { 2: 'back-lost' },
    1: { 5: 'large-lost' },
    5: { 1: 'not-asked' }
  }
  const over = {
    status: statusOf(4, { conditions: [condition] }),
    changes: { changes: [change(), change({ culprit: `${HOSTILE} (7)` })] }
  }
  return numbers(5).map((n) =>
    n === 3
      ? { name: nameOf(n), failure: 'no answer' }
      : { name: nameOf(n), facts: factsOf(n, 5, bad[n], n === 4 ? over : {}) }
  )
}

/** Roles and names from a node of the tree down, without plain text. */
function rolesIn(node: SerializedAXNode): readonly string[] {
  const own = ['StaticText', 'InlineTextBox', 'generic', 'none'].includes(node.role)
    ? []
    : [`${node.role} ${node.name ?? ''}`.trim()]
  return [...own, ...(node.children ?? []).flatMap(rolesIn)]
}

async function tree(page: Page): Promise<readonly string[]> {
  const root = await page.accessibility.snapshot({ interestingOnly: false })
  assert.ok(root)
  return rolesIn(root)
}

/** What Tab reaches, in its order, until it leaves the page. */
async function tabOrder(page: Page): Promise<readonly string[]> {
  const reached: string[] = []
  for (let n = 0; n < 30; n++) {
    await page.keyboard.press('Tab')
    const name = await page.evaluate(() => {
      const { activeElement: at } = document
      if (at === null || at === document.body) return ''
      return [at.tagName.toLowerCase(), at.id || at.getAttribute('name') || at.ariaLabel || at.textContent]
        .join(' ')
        .slice(0, 60)
    })
    if (name === '') break
    reached.push(name)
  }
  return reached
}

const skip = withoutBrowser
const noRoot = process.getuid?.() === 0 ? false : 'needs root'
const SHIPPED = fileURLToPath(new URL('../../dist/bin/weftctl', import.meta.url))

describe('the page in a browser', { skip }, () => {
  let browser: Browser
  before(async () => {
    browser = await startBrowser()
  })
  after(() => browser?.close())

  test('each path is a cell with its state in class, sign and words; sentences say what is broken', async (t) => {
    await using served = await serveCluster(faulty)
    const { page, requests, complaints } = await openPage(browser, served.url)
    assert.equal(await countOf(page, '#matrix tbody td'), 25)
    const counts = Object.fromEntries(
      await Promise.all(
        ['self', 'good', 'bad', 'warning', 'unknown'].map(async (tone) => [
          tone,
          await countOf(page, `#matrix td.${tone}`)
        ])
      )
    )
    assert.deepEqual(counts, { self: 5, good: 12, bad: 2, warning: 1, unknown: 5 })
    assert.deepEqual(await textsOf(page, '#matrix tbody tr:nth-child(2) td'), ['1.0', '–', '0.6', '→', '1.3'])
    assert.deepEqual(await textsOf(page, '#matrix thead th'), numbers(5).map(nameOf))
    assert.equal(
      await textOf(page, '#summary'),
      '× 3 of 20 paths between nodes are broken; 1 node has an error or does not answer'
    )
    assert.match(await page.title(), /^× 3 of 20 paths .* – Weft$/)
    const broken = await textsOf(page, '#broken li')
    assert.equal(broken.length, 3)
    assert.match(broken[0] ?? '', /^node-2 to node-4 → one way: outbound lost between pods, IPv4, since /)
    assert.match(
      broken[0] ?? '',
      /packets of 64 bytes to UDP 8472 do not arrive; those from there do.*open UDP 8472 on the other node$/
    )
    assert.deepEqual((await textsOf(page, '#nodes tbody th')).slice(0, 2), ['node-3', 'node-4'])
    assert.match((await textsOf(page, '#nodes .conditions')).join(), /FORWARD_DROPPED.*delete the rule/)
    assert.deepEqual(await textsOf(page, '#culprits li'), ['NetworkManager: 1', `${HOSTILE}: 1`])
    await pictures(page, 'faulty')
    // Texts from nodes stay texts.
    assert.match((await textsOf(page, '#nodes .conditions')).join(), /<img src=x/)
    assert.deepEqual(
      [await countOf(page, 'img, iframe, body script:not(:last-child)'), await countOf(page, 'script')],
      [0, 1]
    )
    assert.deepEqual(complaints, [])
    // Requests go to the server alone.
    const others = requests.filter((url) => !url.startsWith(served.url) && !url.startsWith('data:'))
    assert.deepEqual([others, requests.length > 1], [[], true])
    t.diagnostic(`${requests.length} requests, all to 127.0.0.1`)
    await page.close()
  })

  test('both colour schemes have colours of their own, and signs and words that do not change', async () => {
    await using served = await serveCluster(faulty)
    const { page } = await openPage(browser, served.url)
    const look = async (value: string) => {
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value }])
      return page.evaluate(() => {
        const of = (selector: string) => getComputedStyle(document.querySelector(selector) as Element)
        return [
          of('body').backgroundColor,
          of('body').color,
          of('#matrix td.bad').backgroundColor,
          of('#matrix td.good').color
        ]
      })
    }
    const [light, dark] = [await look('light'), await look('dark')]
    assert.equal(new Set([...light, ...dark]).size, 8, `${light} ${dark}`)
    await page.close()
  })

  test('40,000 cells of 200 nodes are drawn, and keys move in them', async (t) => {
    const nodes = healthy(200).map((each, at) =>
      at < 20 && each.facts ? { ...each, facts: { ...each.facts, peers: peersOf(at + 1, 200, { 77: 'lost' }) } } : each
    )
    await using served = await serveCluster(() => nodes)
    const start = performance.now()
    const { page, complaints } = await openPage(browser, served.url)
    t.diagnostic(`200 nodes asked and drawn in ${Math.round(performance.now() - start)} ms`)
    assert.deepEqual([await countOf(page, '#matrix tbody td'), await countOf(page, '#matrix td.bad')], [40_000, 20])
    assert.match(await textOf(page, '#summary'), /^× 20 of 39,800 paths between nodes are broken$/)
    assert.equal(await countOf(page, '#matrix [tabindex="0"]'), 1)
    await page.focus('#matrix [tabindex="0"]')
    const at = () => page.evaluate(() => document.activeElement?.ariaLabel)
    assert.equal(await at(), 'node-1 to node-77: lost, direction unknown, last round trip 0.5 ms')
    await page.keyboard.down('Control')
    await page.keyboard.press('End')
    await page.keyboard.up('Control')
    assert.equal(await at(), 'node-200: the node itself')
    await page.keyboard.press('ArrowUp')
    assert.match(String(await at()), /^node-199 to node-200: whole, round trip [\d.]+ ms$/)
    assert.match(await textOf(page, '#cell'), /^node-199 to node-200: whole/)
    await pictures(page, '200')
    assert.deepEqual(complaints, [])
    await page.close()
  })

  test('the accessibility tree has headings, a grid with headers and named cells, tables and the form, in this order', async () => {
    await using served = await serveCluster(faulty)
    const { page } = await openPage(browser, served.url)
    const roles = await tree(page)
    const order = [
      'banner',
      'heading Weft',
      'status',
      'button Pause',
      'main',
      'heading Paths between nodes',
      'list States of paths, with their number',
      'grid Paths between nodes',
      'columnheader node-1',
      'rowheader node-2',
      'gridcell node-2 to node-4: one way: outbound lost, last round trip 0.9 ms',
      'list Broken paths, the worst first',
      'heading Nodes',
      'table Nodes',
      'columnheader Node',
      'rowheader node-3',
      'heading From a pod to a pod',
      'form',
      'combobox From',
      'combobox To',
      'button Follow the path',
      'heading Changes by other programs',
      'table Changes by other programs'
    ]
    let from = 0
    for (const wanted of order) {
      const found = roles.findIndex((role, index) => index >= from && role.startsWith(wanted))
      assert.ok(found >= 0, `${wanted} after ${roles[from]}: ${roles.slice(from, from + 40).join(' | ')}`)
      from = found
    }
    assert.equal(roles.filter((role) => role.startsWith('gridcell node-')).length, 25)
    assert.deepEqual(await tabOrder(page), [
      'button pause',
      'td node-2 to node-4: one way: outbound lost, last round trip',
      'input from',
      'input to',
      'button Follow the path'
    ])
    await page.close()
  })

  test('a refresh shows what is new and takes neither the focus nor what is being typed', async () => {
    let nodes = healthy(3)
    await using served = await serveCluster(() => nodes)
    const { page, complaints } = await openPage(browser, served.url)
    assert.equal(await textOf(page, '#summary'), '✓ All 6 paths between 3 nodes are whole')
    const at = () =>
      page.evaluate(() => document.activeElement?.ariaLabel ?? document.activeElement?.getAttribute('name'))
    await page.focus('#matrix [tabindex="0"]')
    await page.keyboard.press('ArrowDown')
    const focused = await at()
    assert.match(String(focused), /^node-2 to node-1: whole/)
    // Two more nodes, and a path that is lost: the frame of the matrix is another, the cell is the same.
    nodes = healthy(5).map((each, n) =>
      n === 1 && each.facts ? { ...each, facts: factsOf(2, 5, { 1: 'lost' }) } : each
    )
    await until(
      async () => {
        await refreshed(page)
        return (await countOf(page, '#matrix tbody td')) === 25
      },
      { what: 'the two nodes that joined' }
    )
    assert.match(String(await at()), /^node-2 to node-1: lost, direction unknown/)
    assert.match(await textOf(page, '#summary'), /^× 1 of 20 paths between nodes is broken$/)
    await page.type('input[name=from]', 'shop/we')
    nodes = healthy(4)
    await until(
      async () => {
        await refreshed(page)
        return (await countOf(page, '#matrix tbody td')) === 16
      },
      { what: 'the node that left' }
    )
    assert.equal(await at(), 'from')
    await page.keyboard.type('b-1')
    assert.equal(await page.$eval('input[name=from]', (input) => input.value), 'shop/web-1')
    // What the weftds of these nodes know of the path is nothing: it is said, not left out.
    await page.type('input[name=to]', 'shop/db-0-2')
    await page.keyboard.press('Enter')
    await page.waitForSelector('#path-answer h3')
    assert.match(await textOf(page, '#path-answer'), /^× Fault: shop\/web-1, on its node/)
    assert.deepEqual(complaints, [])
    await page.close()
  })

  test('where no weftd knows the question, the page says so and draws no matrix', async () => {
    const nodes = healthy(2).map(({ name, facts }) => {
      const { peers: _, ...rest } = facts ?? assert.fail()
      return { name, facts: { ...rest, unanswered: { peers: 'this weftd does not know the question peers' } } }
    })
    await using served = await serveCluster(() => nodes)
    const { page } = await openPage(browser, served.url)
    assert.match(await textOf(page, '#matrix-note'), /^Whether packets arrive is not known: this weftd does not know/)
    assert.equal(await page.$eval('#matrix-scroll', (element) => element.checkVisibility()), false)
    assert.equal(await textOf(page, '#summary'), '? No fault is reported; whether packets arrive is not known')
    await page.close()
  })

  test('of a real node: red cells while the tunnel port is dropped on another, and a route that a program deleted', {
    skip: noRoot
  }, async () => {
    // Plain routes, once proven, would need no tunnel.
    const network = { Network: '10.244.0.0/16', Backend: { Type: 'vxlan', DirectRouting: false } }
    await using cluster = await Cluster.start({ hosts: [3], network })
    const [one, two] = cluster.nodes
    assert.ok(one && two)
    await using served = await servePages([`--socket=${one.path('/run/weft/weftd.sock')}`])
    const { page, complaints } = await openPage(browser, served.url)
    const shows = (sentence: RegExp) =>
      until(
        async () => {
          await refreshed(page)
          const said = await textOf(page, '#summary')
          if (!sentence.test(said)) throw new Error(said)
          return true
        },
        { what: String(sentence), deadlineMs: 60_000 }
      )
    // The rows of the others are what they published in etcd.
    await shows(/^✓ All 6 paths between 3 nodes are whole$/)
    assert.deepEqual(await textsOf(page, '#matrix tbody th'), ['h1', 'h2', 'h3'])
    assert.match(
      (await textsOf(page, '#nodes tbody')).join(),
      new RegExp(`^h1✓ ready${one.address.replaceAll('.', '\\.')}`)
    )

    cluster.announce('UNDERLAY_LOST')
    const drop = 'INPUT -p udp --dport 8472 -j DROP'
    await two.sh(`iptables -w -I ${drop}`)
    await shows(/^× 4 of 6 paths between nodes are broken/)
    assert.deepEqual(await textsOf(page, '#matrix tbody td.bad'), ['→', '←', '←', '→'])
    const own = (await textsOf(page, '#broken li')).find((text) => text.startsWith('h1 to h2'))
    assert.match(own ?? '', /one way: outbound lost.*UDP port 8472 from this node.*let UDP port 8472 pass/)
    assert.match((await textsOf(page, '#nodes .conditions')).join(), /UNDERLAY_LOST/)
    await pictures(page, 'real')
    await two.sh(`iptables -w -D ${drop}`)
    await shows(/^✓ All 6 paths between 3 nodes are whole$/)

    await one.sh('ip route flush proto 87')
    const rows = await until(
      async () => {
        await refreshed(page)
        const found = await textsOf(page, '#changes tbody tr')
        return found.length > 0 && found
      },
      { what: 'the change' }
    )
    assert.match(rows[0] ?? '', /(ip \(\d+\)|unknown: it had ended .*)put back route 10\.244\..* ms$/)
    assert.deepEqual(complaints, [])
    await page.close()
  })

  test('what is shipped has the page inside, and ends with a signal', { skip: noRoot }, async (t) => {
    await using cluster = await Cluster.start({ hosts: [1] })
    const [one] = cluster.nodes
    assert.ok(one)
    const program = spawn(SHIPPED, ['page', `--socket=${one.path('/run/weft/weftd.sock')}`], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    t.after(() => program.kill('SIGKILL'))
    const [line] = await once(program.stdout.setEncoding('utf8'), 'data')
    const url = /^open (http:\S+) in a browser on this machine; Ctrl-C ends it\n$/.exec(line)?.[1] ?? assert.fail(line)
    const { page, complaints } = await openPage(browser, url)
    assert.equal(await textOf(page, '#summary'), '✓ This node is alone in its network')
    const { html } = documentOf(pageSources())
    assert.equal(await (await fetch(url)).text(), html)
    assert.deepEqual(complaints, [])
    await page.close()
    program.kill('SIGINT')
    assert.deepEqual(await once(program, 'exit'), [0, null])
  })
})
