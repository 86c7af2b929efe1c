// A weftd's membership over a real lease file and a kernel that is a Map.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { BACKENDS, type Registry, registry } from '../../../daemon/backend/registry.ts'
import { Health } from '../../../daemon/health/health.ts'
import { BackendFacts } from '../../../daemon/node/backend-facts.ts'
import { LeaseFile } from '../../../daemon/node/lease-file.ts'
import { Membership, type MembershipDeps } from '../../../daemon/node/membership.ts'
import { Peers } from '../../../daemon/peers/peers.ts'
import { Reconciler } from '../../../daemon/reconcile/reconciler.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { EmbeddedStore } from '../../../daemon/stores/embedded/store.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'
import { MapKernel } from '../map-kernel.ts'

const backends = registry(BACKENDS)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const everywhere: KernelObject = {
  ...({ kind: 'route', table: 254, destination: prefix('0.0.0.0/0'), metric: 0, type: 'unicast' } as const),
  ...{ device: 'eth0', protocol: 3 }
}
/** eth0 with 192.0.2.1/24 and the default route. */
export const HOST: readonly KernelObject[] = [
  { kind: 'link', name: 'eth0', up: true, mtu: 1500, form: { type: 'other', of: '' } },
  { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.1/24') },
  everywhere
]

/** A weftd's membership, peers and reconciler over a lease file in a folder of its own. */
export class Scene implements AsyncDisposable {
  readonly folder: string
  readonly health = new Health(Date.now, () => undefined)
  readonly kernel: MapKernel
  readonly backends: Registry
  readonly file: EmbeddedStore
  readonly leaseFile: LeaseFile
  readonly reconciler: Reconciler
  readonly peers: Peers
  readonly #stop = new AbortController()

  constructor(folder = mkdtempSync(join(tmpdir(), 'weft-network-')), { registry = backends, host = HOST } = {}) {
    this.folder = folder
    this.backends = registry
    this.kernel = new MapKernel(host)
    this.reconciler = new Reconciler({
      ...{ kernel: this.kernel, log: silent, now: () => performance.now(), interest: () => true },
      ...{ refused() {}, drift() {}, recognises: registry.recognises }
    })
    this.peers = new Peers({
      ...{ reconciler: this.reconciler, health: this.health, log: silent, claims: registry.claims },
      ...{ kernel: this.kernel, doubtMs: 60_000, counted() {}, now: Date.now }
    })
    this.file = new EmbeddedStore({ path: join(folder, 'leases.db') }, { log: silent, report: this.health })
    this.leaseFile = new LeaseFile(join(folder, 'lease.json'), silent)
  }

  async join(over: Partial<MembershipDeps> = {}): Promise<Membership> {
    const { kernel, reconciler, peers, health } = this
    const signal = this.#stop.signal
    void reconciler.run(signal)
    await reconciler.observing
    const network = new Membership({
      ...{ kernel, reconciler, store: this.file, peers, health, log: silent },
      ...{
        nodeName: 'node-1',
        backendFacts: new BackendFacts({
          ...{ lacking: async () => [], needs: this.backends.needs, log: silent, now: () => performance.now() }
        }),
        identity: 'one',
        ipv6: true,
        backends: this.backends,
        bridge: 'cni0',
        interfaceOptions: { ifaces: [], ifaceRegexes: [], publicIp: {} }
      },
      ...{ previous: {}, remembered: this.leaseFile.read(), patienceMs: 20, alsoOwn: () => [] },
      placed: async (place) => {
        if (place.isConfirmed) this.leaseFile.write(place)
      },
      ...over
    })
    void peers.follow(network.leases((over.store ?? this.file).watch(signal)))
    await network.join(signal)
    return network
  }

  detail(code: string): string | undefined {
    return this.health.active().find((condition) => condition.code === code)?.detail
  }

  /** Ends the daemon and keeps its files. */
  async stop(): Promise<void> {
    this.#stop.abort()
    await this.file[Symbol.asyncDispose]()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop().catch(() => undefined)
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Changes the lease database without the daemon. */
export function sqlOf(scene: Scene, statement: string): void {
  const database = new DatabaseSync(join(scene.folder, 'leases.db'), { timeout: 5_000 })
  database.exec(statement)
  database.close()
}
