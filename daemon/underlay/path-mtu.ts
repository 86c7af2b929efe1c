// Whether the way to the other nodes carries packets as large as pods may send: the kernel knows what routers on it have complained of, so it is asked now and then.
import { setInterval, setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { formatIp, type Ip, perFamily } from '../../ipam/address.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Kernel } from '../state/kernel.ts'

export type PathDeps = {
  readonly kernel: Pick<Kernel, 'routeTo'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn'>
  readonly place: () => Pick<Place, 'node' | 'backend'> | undefined
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds until the first round, when most leases are known, and between two; in how many rounds everybody has been asked about, and how many are asked about at the least. */
const FIRST = 5_000
const EVERY = 60_000
const ROUNDS = 10
const AT_LEAST = 100
/** Milliseconds that what was seen counts. Linux forgets after 600 s (net.ipv4.route.mtu_expires), though nothing may have become better. */
const COUNTS = 900_000

type Seen = { readonly mtu: number; readonly name: string; readonly at: number }

export class PathMtu {
  readonly #deps: PathDeps
  /** Leases that this pass has not come to yet. */
  #left: string[] = []
  #share = 0
  readonly #seen = new Map<string, Seen>()

  constructor(deps: PathDeps) {
    this.#deps = deps
  }

  /** Until the signal, and rejects with it. */
  async follow(signal: AbortSignal): Promise<void> {
    await sleep(FIRST, undefined, { signal, ref: false })
    await this.look()
    for await (const _ of setInterval(EVERY, undefined, { signal, ref: false })) await this.look()
  }

  /**
   * One round: `ip route get` for a share of the peers. It has the MTU of a route that somebody made so, and for some time the one that a router named when it
   * had to drop a packet that must not be split (RFC 1191, RFC 8201). VXLAN over IPv4 may be split, and no router says so: then only this
   * host's own connections bring it to light.
   */
  async look(): Promise<void> {
    const { peers, place } = this.#deps
    const { node, backend } = place() ?? {}
    if (node === undefined || backend === undefined) return
    if (this.#left.length === 0) {
      this.#left = [...peers.leases.keys()]
      this.#share = Math.max(AT_LEAST, Math.ceil(this.#left.length / ROUNDS))
    }
    for (const key of this.#left.splice(0, this.#share)) {
      const lease = peers.leases.get(key)
      if (lease === undefined || peers.isOwn(key)) continue
      // Hundreds in one go would hold up a pod or a lease for ten milliseconds.
      await turn()
      for (const [family, ip] of perFamily(lease.publicIp))
        if (node.localIp[family] !== undefined) await this.#ask(ip, lease.node ?? key)
    }
    if (this.#seen.size > 0) this.#forget(peers)
    this.#tell(backend.underlayMtu(node))
  }

  async #ask(ip: Ip, name: string): Promise<void> {
    const { kernel, log, now } = this.#deps
    try {
      const mtu = (await kernel.routeTo(ip))?.mtu
      if (mtu !== undefined) this.#seen.set(formatIp(ip), { mtu, name, at: now() })
    } catch (error) {
      log.debug({ ip: formatIp(ip), reason: reasonOf(error) }, 'the route to a node can not be asked for')
    }
  }

  /** What is too old to count, and nodes that have gone. */
  #forget({ leases }: PathDeps['peers']): void {
    const addresses = new Set<string>()
    for (const { publicIp } of leases.values()) for (const [, ip] of perFamily(publicIp)) addresses.add(formatIp(ip))
    const now = this.#deps.now()
    for (const [address, { at }] of this.#seen)
      if (now - at > COUNTS || !addresses.has(address)) this.#seen.delete(address)
  }

  #tell(most: number): void {
    const { health } = this.#deps
    const narrow = [...this.#seen].filter(([, { mtu }]) => mtu < most)
    const [first, ...others] = narrow.sort(([, a], [, b]) => a.mtu - b.mtu)
    if (first === undefined) {
      health.clear('UNDERLAY_MTU')
      return
    }
    const [address, { mtu, name }] = first
    const more = others.length === 0 ? '' : ` (and ${others.length} more node${others.length === 1 ? '' : 's'})`
    health.raise(
      'UNDERLAY_MTU',
      `the way to ${name} at ${address} carries ${mtu} bytes, and packets of pods have up to ${most} between nodes${more}`
    )
  }
}
