// Checks periodically whether the path MTU to the other nodes is below what pods send, from the MTUs that the kernel
// learned from routers; probes that were lost at full size are the proof.
import { setInterval, setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { formatIp, type Ip, perFamily } from '../../ipam/address.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Kernel } from '../state/kernel.ts'
import type { Finding } from './probe-report.ts'
import { Rounds } from './rounds.ts'

export type PathDeps = {
  readonly kernel: Pick<Kernel, 'routeTo'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn'>
  readonly place: () => Pick<Place, 'node' | 'backend'> | undefined
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
  /** That probes of full size are lost while small ones pass, if they are. */
  readonly proven?: () => Finding | undefined
  /** What weftd did about it itself. */
  readonly taken?: () => string | undefined
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds until the first round, when most leases are known, and between rounds. */
const FIRST = 5_000
const EVERY = 60_000
/**
 * Milliseconds for which a finding is kept. Linux drops it after 600 s (net.ipv4.route.mtu_expires), even if the path
 * is still the same.
 */
const KEPT = 900_000

type Seen = { readonly mtu: number; readonly name: string; readonly at: number }

export class PathMtu {
  readonly #deps: PathDeps
  readonly #rounds: Rounds
  readonly #seen = new Map<string, Seen>()

  constructor(deps: PathDeps) {
    this.#deps = deps
    this.#rounds = new Rounds(() => deps.peers.leases.keys())
  }

  /** Until the signal, and rejects with it. */
  async follow(signal: AbortSignal): Promise<void> {
    await sleep(FIRST, undefined, { signal, ref: false })
    await this.check()
    for await (const _ of setInterval(EVERY, undefined, { signal, ref: false })) await this.check()
  }

  /**
   * One round: `ip route get` for a share of the peers. It shows the MTU of a route with a configured one, and for some
   * time the one that a router reported when it dropped a packet that must not be fragmented (RFC 1191, RFC 8201).
   * VXLAN over IPv4 may be fragmented, and no router reports that: then only other connections of this host reveal it.
   */
  async check(): Promise<void> {
    const { peers, place } = this.#deps
    const { node, backend } = place() ?? {}
    if (node === undefined || backend === undefined) return
    for (const key of this.#rounds.next()) {
      const lease = peers.leases.get(key)
      if (lease === undefined || peers.isOwn(key)) continue
      // Hundreds without a pause would delay a pod or a lease by ten milliseconds.
      await turn()
      for (const [family, ip] of perFamily(lease.publicIp))
        if (node.localIp[family] !== undefined) await this.#lookUp(ip, lease.node ?? key)
    }
    if (this.#seen.size > 0) this.#forget(peers)
    this.#report(backend.underlayMtu(node))
  }

  /** What probes found has changed. */
  report(): void {
    const { node, backend } = this.#deps.place() ?? {}
    if (node !== undefined && backend !== undefined) this.#report(backend.underlayMtu(node))
  }

  async #lookUp(ip: Ip, name: string): Promise<void> {
    const { kernel, log, now } = this.#deps
    try {
      const mtu = (await kernel.routeTo(ip))?.mtu
      if (mtu !== undefined) this.#seen.set(formatIp(ip), { mtu, name, at: now() })
    } catch (error) {
      log.debug({ ip: formatIp(ip), reason: reasonOf(error) }, "can't look up the route to a node")
    }
  }

  /** Removes findings that are too old, and those of nodes that no longer exist. */
  #forget({ leases }: PathDeps['peers']): void {
    const addresses = new Set<string>()
    for (const { publicIp } of leases.values()) for (const [, ip] of perFamily(publicIp)) addresses.add(formatIp(ip))
    const now = this.#deps.now()
    for (const [address, { at }] of this.#seen)
      if (now - at > KEPT || !addresses.has(address)) this.#seen.delete(address)
  }

  #report(most: number): void {
    const { health, proven } = this.#deps
    const finding = proven?.()
    if (finding !== undefined) {
      const taken = this.#deps.taken?.()
      health.raise('UNDERLAY_MTU', taken === undefined ? finding.detail : `${finding.detail}; ${taken}`, finding.cure)
      return
    }
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
      `the path to ${name} at ${address} carries ${mtu} bytes, packets of pods have up to ${most} between nodes${more}`,
      `fix the MTU on the path to ${name}, or set MTU in Backend to ${mtu} and recreate the pods, which keep theirs; the condition ends within 15 minutes`
    )
  }
}
