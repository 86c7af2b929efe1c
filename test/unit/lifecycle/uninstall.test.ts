// Uninstalling: how weftd tells its removal from a restart, and what it deletes then.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { bridgeMac } from '../../../daemon/attachment/identity.ts'
import { type DaemonSetState, DaemonSetWatch, daemonSetEvents } from '../../../daemon/kube/daemonset.ts'
import { emptyBridges, staysFor, uninstall } from '../../../daemon/lifecycle/uninstall.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { ROUTE_PROTOCOL } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { type Prefix, parsePrefix } from '../../../ipam/address.ts'
import { heard, silent } from '../logs.ts'

type Ending = {
  /** What the watch tells while weftd runs, and after it was told to end. */
  readonly watched?: readonly ('exists' | 'deleted')[]
  readonly late?: readonly ('exists' | 'deleted')[]
  readonly lookMs?: number
}

/** A DaemonSet of which the API has given these answers while weftd ran, and gives the last at its end. */
async function ended(answers: readonly (DaemonSetState | 'silent')[], ending: Ending = {}): Promise<boolean> {
  const { watched = [], late = [], lookMs = 1 } = ending
  const stop = new AbortController()
  const atTheEnd = answers.at(-1) ?? 'silent'
  let at = 0
  const over = Promise.withResolvers<void>()
  const ask = async (): Promise<DaemonSetState> => {
    if (at === answers.length - 2) setImmediate(() => stop.abort())
    const answer = answers[at++] ?? atTheEnd
    if (answer === 'silent') throw new Error('connect ECONNREFUSED')
    return answer
  }
  const asked = Promise.withResolvers<void>()
  async function* watch(signal: AbortSignal) {
    yield* watched
    await asked.promise
    yield* late
    if (!signal.aborted) await once(signal, 'abort')
    over.resolve()
  }
  const pace = { againMs: 1, lookMs, lateMs: late.length > 0 ? 10_000 : 1 }
  const own = new DaemonSetWatch('weft/weft', { ask, watch }, silent, pace)
  await assert.rejects(own.follow(stop.signal), { name: 'AbortError' })
  at = answers.length - 1
  const deleted = own.isDeleted()
  asked.resolve()
  const isDeleted = await deleted
  own[Symbol.dispose]()
  // The watch ends with it.
  await over.promise
  return isDeleted
}

const hour = 3_600_000
const ends: readonly (readonly [what: string, atTheEnd: DaemonSetState | 'silent', isDeleted: boolean])[] = [
  ['exists: it is being replaced', 'exists', false],
  ['is gone or being deleted: it leaves', 'deleted', true],
  ['may not be read any more, the role went with it: it leaves', 'denied', true],
  [
    'is not told of to whose token counts no longer, since its pod was deleted by force: everything stays',
    'unknown',
    false
  ],
  ['is not told of, because nobody answers: everything stays', 'silent', false]
]
for (const [what, atTheEnd, isDeleted] of ends) {
  test(`a weftd that ends and whose DaemonSet ${what}`, async () => {
    assert.equal(await ended(['exists', atTheEnd], { lookMs: hour }), isDeleted)
    assert.equal(await ended(['exists', atTheEnd], { lookMs: hour, watched: ['exists'] }), isDeleted)
  })
}

for (const atTheEnd of ['unknown', 'silent', 'denied'] as const)
  test(`a deletion that the watch has told of counts where the answer at the end is ${atTheEnd}`, async () => {
    assert.equal(await ended(['exists', atTheEnd], { watched: ['exists', 'deleted'] }), true)
    assert.equal(await ended(['exists', atTheEnd], { watched: ['deleted', 'exists'], lookMs: 0 }), false, 'made anew')
  })

test('whose token counts no longer leaves when the watch tells of the deletion a moment later', async () => {
  assert.equal(await ended(['exists', 'unknown'], { watched: ['exists'], late: ['deleted'] }), true)
})

test('a DaemonSet that the API says stands was made anew, whatever the watch has told', async () => {
  assert.equal(await ended(['exists', 'exists'], { watched: ['exists', 'deleted'] }), false)
})

test('a watch that never saw it stand tells of a wrong name, not of a deletion', async () => {
  assert.equal(await ended(['unknown', 'unknown'], { watched: ['deleted'] }), false)
})

test('a refusal at the end means nothing where the DaemonSet was never seen, or refused before', async () => {
  assert.equal(await ended(['denied', 'denied']), false)
  assert.equal(await ended(['exists', 'denied', 'denied']), false)
})

test('a refusal at the end means nothing when the last answer was long ago', async () => {
  // Twice no time at all.
  assert.equal(await ended(['exists', 'denied'], { lookMs: 0 }), false)
})

test('a deletion counts also after a time of refusals and silence', async () => {
  assert.equal(await ended(['silent', 'exists', 'denied', 'silent', 'deleted']), true)
})

/** An API server that answers every question with this. */
async function answering(status: number, body: object) {
  const asked: string[] = []
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`)
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' })
    response.end(JSON.stringify(body))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const kubeApiUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { asked, kubeApiUrl, [Symbol.dispose]: () => void server.close() }
}

const said = (reason: string) => ({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message: reason })
/** As a kube-apiserver says it. */
const notFound = {
  ...said('daemonsets.apps "weft" not found'),
  ...{ reason: 'NotFound', code: 404, details: { name: 'weft', group: 'apps', kind: 'daemonsets' } }
}
const answers: readonly (readonly [status: number, body: object, state: DaemonSetState])[] = [
  [200, { kind: 'DaemonSet', metadata: { name: 'weft' } }, 'exists'],
  [200, { kind: 'DaemonSet', metadata: { name: 'weft', deletionTimestamp: '2026-11-21T12:00:00Z' } }, 'deleted'],
  [404, notFound, 'deleted'],
  [403, said('forbidden'), 'denied'],
  [401, said('Unauthorized'), 'unknown']
]
for (const [status, body, state] of answers) {
  test(`an API that answers ${status} ${JSON.stringify(body)} says that the DaemonSet ${state}`, async () => {
    using api = await answering(status, body)
    const { ask } = await daemonSetEvents('net/weft', { kubeApiUrl: api.kubeApiUrl, environment: {} }, silent)
    assert.equal(await ask(AbortSignal.timeout(10_000)), state)
    assert.equal(api.asked[0], 'GET /apis/apps/v1/namespaces/net/daemonsets/weft')
  })
}

const sayingNothing: readonly (readonly [what: string, status: number, body: object])[] = [
  ['fails', 500, said('etcd is away')],
  ['does not serve the group', 404, { ...said('could not find the requested resource'), reason: 'NotFound' }],
  ['is a proxy that knows no such page', 404, { error: 'not found' }],
  ['no longer has the version', 410, said('too old')]
]
for (const [what, status, body] of sayingNothing) {
  test(`an API that ${what} says nothing about the DaemonSet`, async () => {
    using api = await answering(status, body)
    const { ask } = await daemonSetEvents('net/weft', { kubeApiUrl: api.kubeApiUrl, environment: {} }, silent)
    await assert.rejects(ask(AbortSignal.timeout(10_000)), new RegExp(String(status)))
  })
}

const prefix = (text: string): Prefix => {
  const parsed = parsePrefix(text)
  assert.ok(parsed)
  return parsed
}
const route = (to: string, device: string): KernelObject => ({
  ...{
    kind: 'route',
    table: 254,
    destination: prefix(to),
    metric: 0,
    type: 'unicast',
    device,
    protocol: ROUTE_PROTOCOL
  }
})
const proxy = (of: string): KernelObject => ({
  ...{ kind: 'proxy', device: 'cni0', ip: prefix(`${of}/128`).ip, protocol: ROUTE_PROTOCOL }
})
const bridge: KernelObject = { kind: 'link', name: 'cni0', form: { type: 'bridge' } }
const gateway: KernelObject = { kind: 'address', device: 'cni0', prefix: prefix('10.244.1.1/24') }
const port: KernelObject = {
  ...{ kind: 'link', name: 'veth12345678', form: { type: 'veth' }, master: 'cni0' },
  alias: 'weft cbr0 c1 eth0 default/web'
}
/** In a container the node's own link is a veth. */
const uplink: KernelObject = { kind: 'link', name: 'eth0', form: { type: 'veth' } }
const docker: KernelObject = { kind: 'link', name: 'docker0', form: { type: 'bridge' } }
const tunnel: KernelObject = {
  kind: 'link',
  name: 'weft.1',
  form: {
    type: 'vxlan',
    vni: 1,
    port: 8472,
    local: prefix('192.0.2.1/32').ip,
    parent: 'eth0',
    learning: false,
    gbp: false
  }
}

const adminCall: KernelObject = {
  kind: 'admin-call',
  ...{ tool: 'iptables-nft', family: 'ip', table: 'filter', chain: 'FORWARD', target: 'CNI-ADMIN' }
}

test("the administrator's chain is called as long as pods run", () => {
  assert.deepEqual(
    [[port, adminCall], [adminCall]].map((objects) => staysFor(stateOf(objects))(adminCall)),
    [true, false]
  )
})

test('tunnels and the routes to other nodes are removed; interfaces of pods, their bridge and the routes to them stay', () => {
  const objects = [
    bridge,
    gateway,
    port,
    tunnel,
    uplink,
    route('10.244.2.0/24', 'weft.1'),
    route('10.244.3.0/24', 'eth0'),
    route('10.244.4.0/24', 'cni0'),
    route('10.244.1.7/32', 'veth12345678'),
    route('fd00::7/128', 'veth12345678'),
    proxy('fd00::7'),
    proxy('fd00::8'),
    adminCall
  ]
  const stays = staysFor(stateOf(objects))
  assert.deepEqual(
    objects.filter((object) => !stays(object)).map((object) => textOf(object).split(' ').slice(0, 3).join(' ')),
    [
      tunnel,
      uplink,
      route('10.244.2.0/24', 'weft.1'),
      route('10.244.3.0/24', 'eth0'),
      route('10.244.4.0/24', 'cni0'),
      proxy('fd00::8')
    ].map((object) => textOf(object).split(' ').slice(0, 3).join(' '))
  )
})

test("a bridge of Weft's with an address of the subnet is removed when it has no ports, another program's is not", () => {
  const subnet = { 4: prefix('10.244.1.0/24') }
  const names = (objects: readonly KernelObject[]) =>
    emptyBridges(stateOf(objects), subnet, 'one').map((object) => (object.kind === 'link' ? object.name : object.kind))
  const ours: KernelObject = { ...bridge, mac: bridgeMac('one', 'cni0') } as KernelObject
  assert.deepEqual(names([ours, gateway, docker]), ['cni0'])
  assert.deepEqual(names([ours, gateway, docker, port]), [])
  assert.deepEqual(names([ours, docker]), [])
  for (const mac of [bridgeMac('another', 'cni0'), bridgeMac('one', 'cni1'), undefined])
    assert.deepEqual(names([{ ...bridge, mac } as KernelObject, gateway]), [], 'a bridge that somebody else made')
})

test('the firewall tables are removed although the routes could not be, and both failures are named', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-uninstall-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const errors: string[] = []
  let asked = 0
  const removed = await uninstall({
    options: { cniConfDir: undefined, cniBinDir: undefined, subnetFile: join(folder, 'subnet.env'), stateDir: folder },
    reconciler: {
      observed: stateOf([]),
      leave: () => Promise.reject(new Error('netlink: no buffer')),
      removeTables: async () => [`busy ${++asked}`],
      discard: async () => []
    },
    ...{ identity: 'one', subnet: {}, secretFiles: [], pods: 0, undoCommands: async () => undefined },
    log: heard((level, _, message) => void (level === 'error' && errors.push(message)))
  })
  assert.equal(removed, false)
  assert.deepEqual(errors, [
    'the network could not be removed: netlink: no buffer',
    'the firewall tables could not be removed: busy 1'
  ])
})
