// Hostile answers of a daemon to weftctl: it prints text or an error with a cure, never the words of JavaScript.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { COMMANDS, run } from '../../daemon/ctl/run.ts'
import { campaignOf, casesOf } from './campaign.ts'
import type { Random } from './random.ts'
import { jsonOf, oddTree, spoiledJson, spoiledText, type Tree, treeOf } from './tree.ts'

const call = {
  ...{ verb: 'ADD', plugin: 'weft', network: 'n', container: 'c0ffee', interface: 'eth0', at: '2026-01-01T00:00:00Z' },
  ...{ seconds: 0.1, failure: { code: 11, sentence: 's', details: 'd' } }
}
const object = { text: 'route', state: 'different', instead: 'other' }
const pod = {
  ...{ pod: 'a/b', container: 'c0ffee', interface: 'eth0', network: 'n', link: 'veth1', addresses: ['10.1.2.3'] },
  ...{ hostPorts: [{ protocol: 'tcp', hostPort: 80, containerPort: 8080, hostIp: '::1' }], netns: 'alive' },
  ...{ bandwidth: { ingress: 1e9 }, objects: [object] }
}
const lease = {
  ...{ key: '10.1.2.0-24', node: 'a', isOwn: false, subnet: ['10.1.2.0/24'], publicIp: ['192.0.2.1'], inKernel: true },
  ...{ backend: 'vxlan', reach: [{ how: 'direct', device: 'eth0' }], since: '2026-01-01T00:00:00Z', objects: [object] }
}
const condition = { code: 'A', severity: 'error', blocks: ['add'], since: '2026-01-01T00:00:00Z', sentence: 's' }
const hop = { at: 'firewall', state: 'wrong', text: 't', cure: 'c' }
const oneWay = {
  ...{ from: { kind: 'pod', name: 'a/b', address: '10.1.2.3' }, to: { kind: 'node', name: 'n', address: '10.1.3.0' } },
  ...{ hops: [hop, { at: 'route', state: 'whole', text: 't' }], first: hop, answeredUs: 100 }
}
const way = { ...oneWay, back: oneWay, backUnknown: 'why' }
const cell = { key: '10.1.3.0-24', node: 'n', state: 'wrong', at: 'firewall', text: 't', cure: 'c' }
/** A right answer to each question. */
const RIGHT: Readonly<Record<string, object>> = {
  status: {
    ...{
      version: '1',
      ready: true,
      startedAt: 't',
      node: 'a',
      store: 'etcd',
      backend: 'vxlan',
      network: ['10.1.0.0/16']
    },
    ...{ subnet: ['10.1.2.0/24'], publicIp: ['192.0.2.1'], link: { name: 'eth0', mtuBytes: 1500, ips: ['192.0.2.1'] } },
    ...{ peers: 1, pods: 1, conditions: [condition] }
  },
  nodes: { leases: [lease, { ...lease, skipped: 'why' }] },
  pods: { pods: [pod] },
  peers: {
    ...{ node: 'a', key: '10.1.2.0-24', reports: [{ key: 'k', node: 'n', at: 't', asked: 1, bad: [] }] },
    peers: [
      {
        ...{ key: '10.1.3.0-24', node: 'n', publicIp: ['192.0.2.2'], subnet: ['10.1.3.0/24'] },
        ways: [{ way: 'pods', family: 'ipv4', verdict: 'out-lost', text: 't', cure: 'c', since: 't', answeredAt: 't' }]
      }
    ]
  },
  diff: { changes: [{ do: 'put', text: '+ route', because: 'lease' }] },
  changes: { changes: [{ at: '2026-01-01T00:00:00.000Z', text: 'put back route', unnamed: 'u', tookMs: 1 }] },
  'why pod': { pod: 'a/b', calls: [call], attachments: [pod], blocking: ['b'], near: ['n'], rememberedSince: 't', way },
  'why node': { name: 'a', leases: [lease], conditions: ['c'], near: ['n'], way },
  'why address': { way },
  check: {
    ...{ node: 'a', key: '10.1.2.0-24', nodes: 2, sampled: 1, unasked: [{ node: 'b', reason: 'r' }] },
    rows: [{ key: '10.1.2.0-24', node: 'a', source: 'tried', cells: [cell] }]
  }
}

function hostileAnswer(random: Random, right: Tree): string {
  const which = random.below(10)
  const answer = which === 0 ? jsonOf(oddTree(random)) : which === 1 ? jsonOf(right) : spoiledJson(random, right)
  const line = `{"v":1,"answer":${answer}}`
  return (which === 2 ? spoiledText(random, line) : line).replaceAll('\n', ' ')
}

const folder = mkdtempSync(join(tmpdir(), 'weft-fuzz-'))
const path = join(folder, 'weftd.sock')
let line = ''
const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => {})
  socket.once('data', () => socket.end(`${line}\n`))
})
before(() => new Promise<void>((resolve) => server.listen(path, resolve)))
after(async () => {
  await new Promise((resolve) => server.close(resolve))
  rmSync(folder, { recursive: true })
})

test('there is a right answer to every question', () => {
  const asked = new Set(Object.keys(RIGHT).map((question) => question.split(' ')[0]))
  assert.deepEqual(asked, new Set(Object.keys(COMMANDS)))
})

for (const [question, right] of Object.entries(RIGHT))
  test(`any answer to ${question} is printed, or refused with a cure`, async () => {
    await campaignOf(question, casesOf(0.002), 1, async (random) => {
      line = hostileAnswer(random, treeOf(right))
      const json = random.chance(0.2) ? ['--json'] : []
      const words = question.startsWith('why') ? [...question.split(' '), 'name'] : [question]
      const said = { out: '', complaints: '' }
      const exit = await run([...words, ...json, `--socket=${path}`], {
        ...{ env: {}, version: '1' },
        out(text) {
          said.out += text
        },
        complain(text) {
          said.complaints += text
        }
      })
      if (exit === 3) assert.match(said.complaints, /^weftctl: .+\ncure: .+\n$/, line)
      else assert.notEqual(said.out, '', line)
      assert.doesNotMatch(
        said.complaints,
        /is not a function|Cannot (read|convert)|not iterable|call stack|undefined/,
        line
      )
      assert.equal(/[^\P{Cc}\n]/u.test(said.out + said.complaints), false, line)
    })
  })
