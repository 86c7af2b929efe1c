// Where DirectRouting may be used: a plain route to a peer's pods is taken once probes of full size have passed on it in
// both directions, and left for the tunnel when it carries nothing. Probes try it by a route of their own, which only
// packets with their type of service take; for a limited number of peers at a time.
import type { Family } from '../../ipam/address.ts'
import { isOnLink } from '../backend/direct.ts'
import type { Log } from '../base/log.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { type KernelObject, keyOf, type Route } from '../state/object.ts'
import { every } from './every.ts'
import { isBad, type Verdict } from './judge.ts'
import type { PlainUnused } from './probe-text.ts'
import type { Prober } from './prober.ts'

export type PlainWaysDeps = {
  readonly prober: Pick<Prober, 'look' | 'routeTo' | 'forEach' | 'tryPlain' | 'refused'>
  /** Which rule of this node's firewall would drop packets of pods that come by a plain route. */
  readonly plainDrop: () => string | undefined
  readonly peers: Pick<Peers, 'leases' | 'routes' | 'reroute'>
  readonly reconciler: Pick<Reconciler, 'wantAll'>
  /** Reads a kernel setting. */
  readonly sysctl: (path: string) => string | undefined
  readonly place: () => Pick<Place, 'node' | 'backend'> | undefined
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds between two looks. */
const EVERY = 2_000
/** Peers that are tried at a time, and leases that are looked at for more in a look. */
const TRIED = 64
const LOOKED_AT = 100
/** Milliseconds: how long a trial may last, until the next after one that failed, and after a plain route that did. */
const TRIAL = 30_000
const REST = 600_000
const SHORT_REST = 30_000
/** Milliseconds within which a plain route that fails once more is left for twice as long as the time before. */
const CALM = 2 * REST

export class PlainWays {
  readonly #deps: PlainWaysDeps
  /** When each trial ends, by lease key. */
  readonly #trials = new Map<string, number>()
  /** No trial of the lease before. */
  readonly #rests = new Map<string, number>()
  /** Since when the plain route of these is not used although it was, in milliseconds of the clock. */
  readonly #left = new Map<string, number>()
  /** What the last trial of these came to, and when. */
  readonly #tried = new Map<string, { readonly why: PlainUnused['why']; readonly at: number }>()
  /** When a plain route in use failed last, and how often within CALM of the time before. */
  readonly #failures = new Map<string, { readonly at: number; readonly repeats: number }>()
  /** Trials whose routes are to be made, and removed. */
  readonly #begun = new Set<string>()
  readonly #ended = new Set<string>()
  #cursor: Iterator<string> | undefined
  /** Found out in each step: peers' probes are too many for it. */
  #isStrict = true
  /** Nodes that refuse plain routes, and the rule by which this one does, found out in each step. */
  #refused: ReadonlySet<string> = new Set()
  #drop: string | undefined

  constructor(deps: PlainWaysDeps) {
    this.#deps = deps
  }

  /** Until the signal, and rejects with it. */
  follow(signal: AbortSignal): Promise<void> {
    return every(EVERY, () => this.step(), signal)
  }

  /** Ends trials, leaves plain routes that carry nothing, and begins other trials. */
  async step(): Promise<void> {
    const { node, backend } = this.#deps.place() ?? {}
    if (node === undefined || backend?.plain === undefined) return
    this.#isStrict = this.#filters(node.device)
    this.#refused = new Set(this.#deps.prober.refused())
    this.#drop = this.#deps.plainDrop()
    const found = [...this.#judged()]
    for (const key of this.#dropped()) found.push([key, false])
    for (const key of this.#failed()) found.push([key, false])
    await this.#use(found)
    this.#forget()
    if (!this.#isStrict) this.#begin()
    await this.#want(found.map(([key]) => key))
  }

  /** Takes plain routes that pass packets, and leaves those that do not. */
  async #use(found: readonly (readonly [key: string, passes: boolean])[]): Promise<void> {
    const { peers, now } = this.#deps
    for (const [key, passes] of found) {
      this.#trials.delete(key)
      if (passes) for (const known of [this.#left, this.#tried]) known.delete(key)
      else if (!this.#left.has(key)) this.#left.set(key, now())
      const ip = peers.leases.get(key)?.publicIp[4]
      if (ip !== undefined) peers.routes.note(ip, passes)
    }
    if (found.length > 0) await peers.reroute(found.map(([key]) => key))
  }

  /** What is known of nodes that have left. */
  #forget(): void {
    const { leases } = this.#deps.peers
    for (const key of this.#trials.keys()) if (!leases.has(key)) this.#ended.add(key)
    for (const known of [this.#left, this.#rests, this.#trials, this.#failures, this.#tried])
      for (const key of known.keys()) if (!leases.has(key)) known.delete(key)
  }

  /** Whether the plain route was found to pass packets; `undefined`: not known. */
  #passes(key: string): boolean | undefined {
    const { leases, routes } = this.#deps.peers
    return routes.of(leases.get(key)?.publicIp ?? {})[4]?.passes
  }

  /** Routes by which probes try the plain way to the node of this lease. */
  #routesOf(key: string): readonly Route[] {
    const { peers, place } = this.#deps
    const [lease, { node, backend } = {}] = [peers.leases.get(key), place()]
    if (lease === undefined || node === undefined) return []
    return backend?.plain?.(lease, node, peers.routes.of(lease.publicIp)) ?? []
  }

  /** Why the plain route to this node is not used; `undefined`: it is, there can be none, or it is not known yet. */
  unused(key: string, family: Family = 4): PlainUnused | undefined {
    const { place, prober, now } = this.#deps
    if (family === 6) return this.#unusedBy6(key)
    const device = prober.routeTo(key, 4)?.device
    if (device === undefined || device === place()?.node.device || this.#routesOf(key).length === 0) return undefined
    if (this.#isStrict) {
      const since = this.#left.get(key)
      return since === undefined ? { why: 'strict', msAgo: 0 } : { why: 'left-strict', msAgo: now() - since }
    }
    if (this.#drop !== undefined) return { why: 'refused-here', msAgo: 0, because: this.#drop }
    if (this.#refused.has(key)) return { why: 'refused-there', msAgo: 0 }
    const [left, tried] = [this.#left.get(key), this.#tried.get(key)]
    if (left !== undefined) return { why: 'left', msAgo: now() - left }
    return tried && { why: tried.why, msAgo: now() - tried.at }
  }

  /** The kernel ignores the type of service of IPv6 routes, so that there is none that only probes would take. */
  #unusedBy6(key: string): PlainUnused | undefined {
    const { place, prober, peers } = this.#deps
    const [{ node, backend } = {}, lease, route] = [place(), peers.leases.get(key), prober.routeTo(key, 6)]
    if (node === undefined || backend?.plain === undefined || lease === undefined || route === undefined)
      return undefined
    const isPlain = route.device === node.device
    return isPlain || !isOnLink(node, peers.routes.of(lease.publicIp)[6]) ? undefined : { why: 'no-trial', msAgo: 0 }
  }

  /** A trial of this lease has the first place: its node has begun one. */
  nominate(key: string): void {
    if (this.#isStrict || this.#isRefused(key)) return
    const left = (this.#rests.get(key) ?? 0) - this.#deps.now()
    // Two nodes whose trials fail must not begin each other's again and again.
    if (left > REST - SHORT_REST || (left > 0 && this.#passes(key) === false)) return
    this.#rests.delete(key)
    this.#start(key)
  }

  /** What trials came to. */
  *#judged(): Generator<[string, boolean]> {
    const now = this.#deps.now()
    for (const [key, end] of this.#trials) {
      // What is known is of the trial before.
      if (this.#begun.has(key)) continue
      const look = this.#deps.prober.look(key, 4, 'plain')
      const verdict = look?.judgement.verdict ?? 'not-asked'
      if (verdict === 'whole' && look?.isHeardWhole === true && !this.#isStrict && !this.#isRefused(key)) {
        this.#deps.log.info(
          { lease: key },
          'probes of full size pass on the plain route in both directions: it is used'
        )
        yield [key, true]
      } else if (isBad(verdict) || now > end || this.#isStrict || this.#isRefused(key)) {
        this.#rests.set(key, now + (this.#passes(key) === false || this.#isRefused(key) ? SHORT_REST : REST))
        this.#trials.delete(key)
        if (!this.#isStrict && !this.#isRefused(key)) this.#tried.set(key, { why: whyFailed(verdict), at: now })
        this.#deps.prober.tryPlain(key, false)
        this.#ended.add(key)
      }
    }
  }

  /**
   * Whether the firewall of either node drops packets of pods that it forwards to or from the plain route. Probes end
   * in another chain, and prove nothing then.
   */
  #isRefused(key: string): boolean {
    return this.#drop !== undefined || this.#refused.has(key)
  }

  /** Nodes whose plain route was proven, and is refused now. Routes that an administrator asks for stay. */
  *#dropped(): Generator<string> {
    const { prober, peers, place, log } = this.#deps
    for (const key of this.#drop !== undefined ? peers.leases.keys() : this.#refused) {
      if (this.#passes(key) !== true || prober.routeTo(key, 4)?.device !== place()?.node.device) continue
      log.warn(
        { lease: key },
        'a firewall drops packets of pods that a node forwards: the tunnel is used, not the plain route'
      )
      yield key
    }
  }

  /** Nodes whose plain route is in use and carries nothing, although they are there. */
  *#failed(): Generator<string> {
    const { prober, peers, place, log } = this.#deps
    const device = place()?.node.device
    const bad: string[] = []
    prober.forEach((key, family, way, verdict) => {
      if (way === 'pods' && family === 4 && isBad(verdict) && verdict !== 'host-firewall') bad.push(key)
    })
    for (const key of bad) {
      if (prober.routeTo(key, 4)?.device !== device) continue
      const nodes = prober.look(key, 4, 'nodes')?.judgement.verdict
      // Behind a strict filter there is no trial to come back by: then only a node that is certainly there counts.
      if (nodes === 'lost' || (this.#isStrict && nodes !== 'whole')) continue
      if (!peers.leases.has(key)) continue
      log.warn(
        { lease: key },
        'the plain route carries nothing: the tunnel is used instead, and the plain route is tried again later'
      )
      this.#restAfterFailure(key)
      yield key
    }
  }

  /** A route that passes trials and fails in use costs packets each time it is taken. */
  #restAfterFailure(key: string): void {
    const now = this.#deps.now()
    const before = this.#failures.get(key)
    const repeats = before !== undefined && now - before.at < CALM ? before.repeats + 1 : 0
    this.#failures.set(key, { at: now, repeats })
    this.#rests.set(key, now + Math.min(REST, SHORT_REST * 2 ** repeats))
  }

  #begin(): void {
    for (let left = LOOKED_AT; left > 0 && this.#trials.size < TRIED; left--) {
      this.#cursor ??= this.#deps.peers.leases.keys()
      const { value: key, done } = this.#cursor.next()
      if (done || key === undefined) {
        this.#cursor = undefined
        return
      }
      this.#start(key)
    }
  }

  #start(key: string): void {
    const { prober, place, now } = this.#deps
    const route = prober.routeTo(key, 4)
    if (route === undefined || route.device === place()?.node.device || this.#trials.has(key)) return
    if (this.#isRefused(key)) return
    if (this.#trials.size >= TRIED || (this.#rests.get(key) ?? 0) > now() || this.#routesOf(key).length === 0) return
    this.#trials.set(key, now() + TRIAL)
    this.#begun.add(key)
  }

  /** The routes of trials that began or ended. */
  async #want(ended: readonly string[]): Promise<void> {
    const { reconciler, prober } = this.#deps
    const begun = [...this.#begun].filter((key) => this.#trials.has(key))
    const over = new Set([...ended, ...this.#ended])
    this.#begun.clear()
    this.#ended.clear()
    if (begun.length === 0 && over.size === 0) return
    const objects = (key: string): readonly KernelObject[] => (this.#trials.has(key) ? this.#routesOf(key) : [])
    const outcomes = await reconciler.wantAll([...begun, ...over].map((key) => [`trial ${key}`, objects(key)] as const))
    const refused = new Set(outcomes.flatMap(({ change, error }) => (error === undefined ? [] : keyOf(change.object))))
    for (const key of begun) {
      // Without its route the probes would take the tunnel, and prove nothing.
      if (!this.#routesOf(key).some((route) => refused.has(keyOf(route)))) prober.tryPlain(key, true)
      else {
        this.#trials.delete(key)
        this.#rests.set(key, this.#deps.now() + REST)
      }
    }
    for (const key of over) if (!this.#trials.has(key)) prober.tryPlain(key, false)
  }

  /**
   * With a strict reverse path filter (RFC 3704) this host drops what arrives by the plain route while its own route to
   * the sender is the tunnel: the two could not change one after the other. The larger setting counts.
   */
  #filters(device: string): boolean {
    const values = ['all', device].map((name) => Number(this.#deps.sysctl(`net/ipv4/conf/${name}/rp_filter`) ?? 0))
    return Math.max(...values) === 1
  }
}

/** What is whole and not taken lacks the other direction. */
function whyFailed(verdict: Verdict): PlainUnused['why'] {
  if (verdict === 'large-lost') return verdict
  return isBad(verdict) ? 'lost' : 'unheard'
}
