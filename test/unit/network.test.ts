// This node's place in the network over a real lease file and a kernel that is a Map: what it takes over, keeps and tells when store and host change.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Health } from '../../daemon/health.ts'
import { EmbeddedStore } from '../../daemon/lease/embedded.ts'
import { Network, type NetworkSurroundings } from '../../daemon/network.ts'
import { Peers } from '../../daemon/peers.ts'
import { Reconciler } from '../../daemon/reconciler.ts'
import { type KernelObject, keyOf } from '../../daemon/state/object.ts'
import { parsePrefix } from '../../ipam/address.ts'
import { MapKernel } from './map-kernel.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const silent = { error() {}, warn() {}, info() {}, debug() {} }
const everywhere: KernelObject = {
  ...({ kind: 'route', table: 254, destination: prefix('0.0.0.0/0'), metric: 0, type: 'unicast' } as const),
  ...{ device: 'eth0', protocol: 3 }
}
const HOST: readonly KernelObject[] = [
  { kind: 'link', name: 'eth0', up: true, mtu: 1500, form: { type: 'other', of: '' } },
  { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.1/24') },
  everywhere
]
const CONF = '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}'

class Scene implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-network-'))
  readonly health = new Health(Date.now, () => undefined)
  readonly kernel = new MapKernel(HOST)
  readonly #stop = new AbortController()
  readonly store = new EmbeddedStore({ path: join(this.folder, 'leases.db') }, { log: silent, report: this.health })
  readonly reconciler = new Reconciler({
    ...{ kernel: this.kernel, log: silent, now: () => performance.now(), interest: () => true },
    ...{ refused() {}, drift() {} }
  })
  readonly peers = new Peers({
    ...{ reconciler: this.reconciler, health: this.health, log: silent, doubtMs: 60_000, counted() {}, now: Date.now }
  })
  network: Network | undefined

  async join(over: Partial<NetworkSurroundings> = {}): Promise<Network> {
    const { kernel, reconciler, store, peers, health } = this
    const signal = this.#stop.signal
    void reconciler.run(signal)
    await reconciler.observing
    const network = new Network({
      ...{ kernel, reconciler, store, peers, health, log: silent, nodeName: 'node-1', identity: 'one', ipv6: true },
      ...{ wish: { ifaces: [], ifaceRegexes: [], publicIp: {} }, previous: {}, alsoOwn: () => [] },
      placed: async () => undefined,
      ...over
    })
    this.network = network
    void peers.follow(network.leases(store.watch(signal)))
    await network.join(signal)
    return network
  }

  detail(code: string): string | undefined {
    return this.health.active().find((condition) => condition.code === code)?.detail
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.store[Symbol.asyncDispose]()
    rmSync(this.folder, { recursive: true, force: true })
  }
}

async function until<T>(condition: () => T | undefined | false, what: string): Promise<T> {
  for (const deadline = performance.now() + 10_000; ; ) {
    const answer = condition()
    if (answer !== undefined && answer !== false) return answer
    if (performance.now() > deadline) assert.fail(`waited 10 s for: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('a configuration that changes while we run is told with what differs, and no longer once it is as before', async () => {
  await using scene = new Scene()
  scene.store.configure(CONF)
  await scene.join()
  scene.store.configure(CONF.replace('10.244', '10.9'))
  const said = await until(() => scene.detail('CONFIG_CHANGED'), 'the condition')
  assert.match(said, /leases\.db: Network is 10\.244\.0\.0\/16 here and 10\.9\.0\.0\/16 there$/)
  assert.equal(scene.health.blocking('ready'), undefined)
  scene.store.configure('{"Network":7}')
  await until(() => /not valid: Network is 7/.test(scene.detail('CONFIG_CHANGED') ?? ''), 'the invalid one to be told')
  scene.store.configure(`  ${CONF}`)
  await until(() => scene.detail('CONFIG_CHANGED') === undefined, 'the end of the condition')
})

test('an interface that goes down is told while it lasts, and nothing else changes', async () => {
  await using scene = new Scene()
  scene.store.configure(CONF)
  const network = await scene.join()
  const [eth0] = HOST
  assert.ok(eth0)
  scene.kernel.change({ ...eth0, carrier: false } as KernelObject, keyOf(eth0))
  await until(() => scene.detail('LINK_DOWN') === 'eth0 has no carrier', 'the condition')
  assert.equal(scene.health.blocking('add'), undefined)
  assert.equal(network.place?.node.device, 'eth0')
  scene.kernel.change({ ...eth0, carrier: true } as KernelObject, keyOf(eth0))
  await until(() => scene.detail('LINK_DOWN') === undefined, 'the end of the condition')
})
