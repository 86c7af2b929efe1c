// `weftctl page` from the command line to its answers over HTTP: one weftd, every node through kubectl, and the path from
// a pod to a pod.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import type { PathView, View } from '../../../daemon/ctl/page/view-types.ts'
import { askCluster } from '../../../daemon/ctl/page-answers.ts'
import type { Kubectl } from '../../../daemon/ctl/remote.ts'
import { type Deps, run } from '../../../daemon/ctl/run.ts'
import { until } from '../until.ts'
import { factsOf, nameOf, numbers } from './page-scene.ts'
import { lease, SmallDaemon } from './small-daemon.ts'

/** `weftctl page` until the test ends, and what its server answers. */
async function opened(t: TestContext, words: readonly string[], over: Partial<Deps> = {}) {
  const end = new AbortController()
  let [out, complaints] = ['', '']
  const exit = run(['page', ...words], {
    ...{ env: {}, version: '1.2.3', stopped: () => end.signal },
    out(text) {
      out += text
    },
    complain(text) {
      complaints += text
    },
    ...over
  })
  t.after(async () => {
    end.abort()
    await exit
  })
  await until(() => out !== '' || complaints !== '', 'the URL')
  const url = /http:\S+/.exec(out)?.[0] ?? assert.fail(complaints)
  const get = async <T>(path: string): Promise<T> => (await fetch(`${url}${path}`)).json() as Promise<T>
  return {
    url,
    view: (): Promise<View> => get('view'),
    path: (from: string, to: string): Promise<PathView> => get(`path?${new URLSearchParams({ from, to })}`),
    stop() {
      end.abort()
      return exit
    }
  }
}

test('the page of one node shows what its weftd answers, and ends with 0 when it is stopped', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2, { node: 'two' })] })
  daemon.health.raise('FORWARDING_OFF', 'eth7 does not forward')
  daemon.leaseEnds = 1_767_300_000_000
  const page = await opened(t, [`--socket=${daemon.socket}`])
  const { nodes, changes, notes } = await page.view()
  assert.deepEqual(
    nodes.rows.map(({ name, state, subnet }) => [name, state.word, subnet]),
    [
      ['one', 'ready, with an error', '10.244.1.0/24'],
      ['two', 'not asked, programmed', '10.244.2.0/24']
    ]
  )
  assert.match(nodes.rows[0]?.conditions[0]?.text ?? '', /eth7 does not forward/)
  assert.deepEqual([nodes.rows[0]?.leaseEnds, nodes.rows[1]?.leaseEnds], ['2026-01-01T20:40:00.000Z', ''])
  assert.match(
    (await daemon.weftctl('status')).out,
    /MTU of pods +1450\n[\s\S]*lease until +2026-01-01T20:40:00Z \(renewed before that\)\n/
  )
  assert.equal(changes.note, 'No other program has changed anything since weftd started.')
  assert.deepEqual(
    notes.filter((note) => note.includes('gave no answer')),
    []
  )
  assert.equal(await page.stop(), 0)
  await assert.rejects(fetch(page.url))
})

test('a weftd that ends while the page is open is shown as a node without an answer', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const page = await opened(t, [`--socket=${daemon.socket}`])
  await daemon[Symbol.asyncDispose]()
  const row = await until(async () => {
    const { nodes } = await page.view()
    return nodes.rows.find(({ state }) => state.word === 'no answer')
  }, 'the page to say so')
  assert.match(row?.conditions[0]?.text ?? '', /weftd does not answer on .*weftd\.sock/)
})

test('--json prints the answers of the node, with what it does not know, and serves nothing', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  const { exit, out } = await daemon.weftctl('page', '--json')
  const facts = JSON.parse(out)
  assert.equal(exit, 0)
  assert.deepEqual([facts.status.node, facts.status.podMtuBytes, facts.changes], ['one', 1450, { changes: [] }])
})

test('without weftd, and with a port that is taken, it ends with 3 and a cure', async (t) => {
  const said: string[] = []
  const deps = { env: {}, version: '1', out: () => assert.fail(), complain: (text: string) => said.push(text) }
  assert.equal(await run(['page', '--socket=/nonexistent/weftd.sock'], deps), 3)
  assert.match(said[0] ?? '', /weftd does not answer on \/nonexistent\/weftd\.sock.*\ncure: start weftd/)
  const daemon = await SmallDaemon.start(t)
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  t.after(() => other.close())
  const { port } = other.address() as AddressInfo
  assert.equal(await run(['page', `--socket=${daemon.socket}`, `--port=${port}`], deps), 3)
  assert.match(said[1] ?? '', /can't listen on port \d+ of 127\.0\.0\.1: .*EADDRINUSE.*\ncure: select another port/)
})

/** kubectl in a cluster of so many nodes; `odd` answers for some. */
function kubectlOf(nodes: number, odd: Readonly<Record<string, string>> = {}) {
  const asked: string[][] = []
  let [running, most] = [0, 0]
  const kubectl: Kubectl = async (words) => {
    asked.push([...words])
    const pod = words[words.indexOf('exec') + 3]
    if (!words.includes('exec')) {
      const listed = numbers(nodes).map((n) => `weft weft-${n} ${nameOf(n)}\n`)
      return { exit: 0, stdout: words.includes('pod') ? nameOf(1) : listed.join(''), stderr: '' }
    }
    most = Math.max(most, ++running)
    await new Promise((resolve) => setTimeout(resolve, 2))
    running--
    const stdout = odd[pod ?? ''] ?? JSON.stringify(factsOf(Number(pod?.replace('weft-', '')), nodes))
    return { exit: 0, stdout, stderr: stdout === '' ? 'error: no such container' : '' }
  }
  return { kubectl, asked, most: () => most }
}

test('kubectl weft page asks the weftd of every node, eight at a time, and names those that do not answer', async (t) => {
  const odd = {
    'weft-3': '',
    'weft-4': '{"status":{"conditions":7}}',
    'weft-5': '{"peers":{"peers":[{}]}}',
    'weft-6': '5'
  }
  const { kubectl, asked, most } = kubectlOf(20, odd)
  const page = await opened(t, ['--context=prod'], { isPlugin: true, kubectl: (words) => kubectl(words) })
  const { nodes, matrix, notes } = await page.view()
  assert.equal(most(), 8)
  assert.deepEqual(asked[1]?.slice(0, 3), ['--request-timeout=10s', '--context', 'prod'])
  assert.match(asked[1]?.join(' ') ?? '', / exec --namespace weft weft-1 --container weftd -- weftctl page --json$/)
  const silent = nodes.rows.filter(({ state }) => state.word === 'no answer')
  assert.deepEqual(
    silent.map(({ name, conditions }) => [name, conditions[0]?.text.replace(/.*failed: /, '')]),
    [
      ['node-3', 'error: no such container'],
      ['node-4', 'its answer cannot be read; use one release on all nodes'],
      ['node-5', 'its answer cannot be read; use one release on all nodes'],
      ['node-6', 'its answer cannot be read; use one release on all nodes']
    ]
  )
  assert.deepEqual(notes, ['4 nodes of 20 gave no answer.'])
  assert.deepEqual(
    [matrix.rows.length, matrix.rows[2]?.states, matrix.rows[0]?.states],
    [20, `uusu${'u'.repeat(16)}`, `s${'w'.repeat(19)}`]
  )
})

test('nodes that would be asked after a minute are named as not asked', async () => {
  const { kubectl } = kubectlOf(20)
  let now = 0
  const asked = await askCluster(kubectl, () => (now += 4_000))
  const late = asked.filter(({ failure }) => failure !== undefined)
  assert.deepEqual([asked.length, late.length], [20, 6])
  assert.equal(late[0]?.failure, 'not asked: the nodes before it took 60 s')
})

test('the reports that every node has from the same store are kept once', async () => {
  const peers = { node: '', key: '', peers: [], reports: [{ key: 'a', node: 'a', at: '', asked: 1, bad: [] }] }
  const facts = JSON.stringify({ nodes: { leases: [] }, peers, unanswered: {} })
  const names = numbers(3).map((n) => `weft-${n}`)
  const asked = await askCluster(kubectlOf(3, Object.fromEntries(names.map((name) => [name, facts]))).kubectl)
  assert.deepEqual(asked.map(({ facts: found }) => found?.peers?.reports?.length ?? 0).sort(), [0, 0, 1])
})

test('text from other nodes is printable', async () => {
  const facts = JSON.stringify({ nodes: { leases: [] }, unanswered: { status: 'a\u202eb\u001b[31m' } })
  const [asked] = await askCluster(kubectlOf(1, { 'weft-1': facts }).kubectl)
  assert.equal(asked?.facts?.unanswered.status, 'a\\u202eb\\u001b[31m')
})

test('the path is followed hop by hop where weftd does that, in both directions', async (t) => {
  const asked: string[] = []
  const kubectl: Kubectl = async (words) => {
    if (!words.includes('exec')) return kubectlOf(2).kubectl(words)
    const question = words.slice(words.indexOf('weftctl') + 1).join(' ')
    if (question.startsWith('page')) return kubectlOf(2).kubectl(words)
    asked.push(question)
    const way = { hops: [{ at: 'route', state: 'whole', text: question }] }
    return { exit: 0, stdout: JSON.stringify({ way }), stderr: '' }
  }
  const page = await opened(t, [], { isPlugin: true, kubectl: (words) => kubectl(words) })
  const { summary, parts } = await page.path('shop/web-1-1', 'shop/db-0-2')
  assert.deepEqual(asked, [
    'why pod shop/web-1-1 to address 10.244.2.3 --json',
    'why pod shop/db-0-2 to address 10.244.1.2 --json'
  ])
  assert.deepEqual([summary.tone, parts.map(({ hops }) => hops.length)], ['good', [1, 1]])
})

test('with a weftd that follows no ways the path is what each node knows of its part', async (t) => {
  const daemon = await SmallDaemon.start(t)
  await daemon.hold()
  await daemon.send({ kind: 'list', leases: [lease(1), lease(2)] })
  const page = await opened(t, [`--socket=${daemon.socket}`])
  const { summary, parts } = await page.path('shop/web-1', '10.244.2.7')
  assert.deepEqual(
    parts.map(({ heading, hops }) => [heading, hops.length]),
    [
      ['shop/web-1, on its node', 0],
      ['From its node to 10.244.2.7', 0]
    ]
  )
  assert.match(parts[0]?.lines[0] ?? '', /weftd has received no call for this pod/)
  assert.match(parts[1]?.lines[0] ?? '', /^lease 10\.244\.2\.0-24: programmed$/)
  assert.equal(summary.word, 'Fault: shop/web-1, on its node')
  const unknown = await page.path('shop/web-1', 'shop/web-2')
  assert.match(unknown.parts[1]?.lines[0] ?? '', /^its address is not known here/)
})

test('what is no name of a pod is refused before anything is asked', async (t) => {
  const { kubectl, asked } = kubectlOf(1)
  const page = await opened(t, [], { isPlugin: true, kubectl: (words) => kubectl(words) })
  const before = asked.length
  for (const [from, to] of [
    ['--all', 'a/b'],
    ['a/b', '-o'],
    ['', 'a'],
    ['a', 'x y'],
    ['a', '$(id)']
  ]) {
    const { status } = {
      status: (await fetch(`${page.url}path?${new URLSearchParams({ from: from ?? '', to: to ?? '' })}`)).status
    }
    assert.equal(status, 500)
  }
  assert.equal(asked.length, before)
})
