// A kernel that is a Map, with the same port as the real one and failures on demand: for what the daemon does above the
// kernel.

import type { Change } from '../../daemon/state/difference.ts'
import type {
  Kernel,
  Observation,
  Outcome,
  PolicyRule,
  RouteLookup,
  RoutingChange,
  Sandbox,
  Sender
} from '../../daemon/state/kernel.ts'
import { deviceOf, type KernelObject, type Key, keyOf, type Route, stateOf } from '../../daemon/state/object.ts'
import { contains, formatIp, type Ip, parseIp } from '../../ipam/address.ts'

/** When all was read. */
const readNow = () => ({ at: performance.now(), unannouncedAt: performance.now() })

export class MapKernel implements Kernel {
  readonly objects: Map<Key, KernelObject>
  /** Every batch that was applied, for counting. */
  readonly batches: (readonly Change[])[] = []
  /** Keys whose changes are refused, with the reason. */
  readonly refuses = new Map<string, string>()
  /** Answers of `routesTo` that differ from the usual ones, by address. */
  readonly routes = new Map<string, RouteLookup | Error | undefined>()
  /** Says that another program changed routes. */
  routing: (change: RoutingChange) => void = () => undefined
  readonly #queue: Observation[] = []
  #wake: (() => void) | undefined

  constructor(objects: Iterable<KernelObject> = []) {
    this.objects = stateOf(objects)
  }

  /** Whether its bridges can keep VLANs apart. */
  hasVlans = true

  filtersVlans = async (): Promise<boolean> => this.hasVlans

  async *observe(_interest: (object: KernelObject) => boolean, signal: AbortSignal): AsyncIterable<Observation> {
    signal.addEventListener('abort', () => this.#wake?.())
    yield { kind: 'everything', state: new Map(this.objects), why: 'start', ...readNow() }
    while (!signal.aborted) {
      const next = this.#queue.shift()
      if (next !== undefined) yield next
      else
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
    }
  }

  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    await new Promise((resolve) => setImmediate(resolve))
    this.batches.push(changes)
    return changes.map((change) => this.#applyOne(change))
  }

  #applyOne(change: Change): Outcome {
    const key = keyOf(change.object)
    const refusal = this.refuses.get(key)
    if (refusal !== undefined) return { change, error: new Error(refusal) }
    const device = deviceOf(change.object)
    if (change.do === 'put' && device !== undefined && !this.objects.has(`link ${device}` as Key)) {
      return { change, error: new Error(`no device ${device}`) }
    }
    this.change(change.do === 'put' ? change.object : undefined, key, { self: true, pid: 1, name: 'weftd' })
    return { change }
  }

  /** Somebody (or we) changed something: it is so from now on, and a notification tells it. */
  change(object: KernelObject | undefined, key: Key, by?: Sender): void {
    if (object === undefined) this.objects.delete(key)
    else this.objects.set(key, object)
    if (object === undefined && key.startsWith('link ')) this.#dropWhatHungOn(key.slice(5))
    this.#tell({ kind: 'changed', key, object, ...(by && { by }), at: performance.now() })
  }

  /** A notification that is late: the object is not so any more. */
  tell(object: KernelObject): void {
    this.#tell({ kind: 'changed', key: keyOf(object), object, at: performance.now() })
  }

  /**
   * As Linux does it: what hangs on a device goes with it, and not all of it is notified; so a complete dump follows.
   */
  #dropWhatHungOn(device: string): void {
    for (const [key, object] of this.objects) if (deviceOf(object) === device) this.objects.delete(key)
    queueMicrotask(() => this.recheck('a link went'))
  }

  recheck(why: string): void {
    this.#tell({ kind: 'everything', state: new Map(this.objects), why, ...readNow() })
  }

  #tell(observation: Observation): void {
    this.#queue.push(observation)
    this.#wake?.()
  }

  sandbox(): Promise<Sandbox> {
    return Promise.reject(new Error('this kernel has no namespaces'))
  }

  /** In order, of all calls. */
  readonly otherChains: string[] = []
  async removeOtherChains(names: readonly string[]): Promise<void> {
    this.otherChains.push(...names)
  }

  removeTables(): Promise<readonly string[]> {
    for (const [key, object] of this.objects) if (object.kind.startsWith('nft-')) this.change(undefined, key)
    return Promise.resolve([])
  }

  runs(): Promise<boolean> {
    return Promise.resolve(true)
  }

  exists(device: string): boolean {
    return this.objects.has(`link ${device}` as Key)
  }

  indexOf(device: string): number | undefined {
    const link = this.objects.get(`link ${device}` as Key)
    return link?.kind === 'link' ? (link.index ?? 1) : undefined
  }

  routeTo(): Promise<undefined> {
    return Promise.resolve(undefined)
  }

  /** As a host whose eth0 is in 192.0.2.0/24 and 2001:db8::/64, with a router at .254 for all else. */
  async routesTo(ips: readonly Ip[]): Promise<readonly (RouteLookup | Error | undefined)[]> {
    const router = parseIp('192.0.2.254')
    return ips.map((ip) => {
      const text = formatIp(ip)
      if (this.routes.has(text)) return this.routes.get(text)
      const isNear = text.startsWith('192.0.2.') || text.startsWith('2001:db8::')
      return { device: 'eth0', ...(!isNear && router && { gateway: router }) }
    })
  }

  /** As if each of our routes were used, and nothing else were there. */
  async usedRoutes(ips: readonly Ip[]): Promise<readonly (Route | undefined)[]> {
    const routes = [...this.objects.values()].filter((object) => object.kind === 'route')
    return ips.map((ip) => routes.find(({ destination }) => contains(destination, ip)))
  }

  async rules(): Promise<readonly PolicyRule[]> {
    return []
  }

  onRouting(listener: (change: RoutingChange) => void): void {
    this.routing = listener
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
