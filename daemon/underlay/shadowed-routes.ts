// Checks whether the kernel would use our route for packets to pods, of other nodes and of this one. That the route is
// in its table does not say so: a policy rule before `main`, a more specific route or one with a smaller metric takes
// the packets away.
import { setImmediate as turn } from 'node:timers/promises'
import {
  contains,
  type Family,
  formatIp,
  formatPrefix,
  type Ip,
  network,
  offset,
  type Prefix,
  samePrefix,
  width
} from '../../ipam/address.ts'
import { reasonOf, toError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import { networksOf, type Place } from '../node/place.ts'
import { leaseOwnerOf, type Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Kernel } from '../state/kernel.ts'
import { keyOf, linkNamed, type Route, sameObject } from '../state/object.ts'
import { ROUTE_PROTOCOL } from '../state/ownership.ts'
import { MAIN_TABLE } from '../state/route.ts'
import { deletionOf, textOf } from '../state/text.ts'

export type ShadowedRoutesDeps = {
  readonly kernel: Pick<Kernel, 'usedRoutes' | 'rules'>
  readonly reconciler: Pick<Reconciler, 'wantedBy' | 'observed'>
  readonly peers: Pick<Peers, 'leases'>
  readonly place: () => Pick<Place, 'node' | 'conf'> | undefined
  /** The bridge of pods, by which their packets come. */
  readonly bridge: string
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
}

/** Routes in one system call: one to two milliseconds with their answers. */
const TOGETHER = 100

/** `key`: of the lease, or OWN. */
type Asked = { readonly key: string; readonly route: Route; readonly ip: Ip }
type Shadow = { readonly text: string; readonly cure: string }
type From = Parameters<Kernel['usedRoutes']>[1]

/** Stands for our own subnet among the keys of leases. */
const OWN = 'own'

export class ShadowedRoutes {
  readonly #deps: ShadowedRoutesDeps
  readonly #found = new Map<string, Shadow>()

  constructor(deps: ShadowedRoutesDeps) {
    this.#deps = deps
  }

  /** What the kernel does with packets to the pods of this lease's node, if that is not what our route says. */
  of(key: string): string | undefined {
    return this.#found.get(key)?.text
  }

  /**
   * Asks the kernel about the routes of these leases and about our own subnet, a hundred in a turn of the event loop.
   */
  async check(keys: readonly string[]): Promise<void> {
    const within = this.#foreignRoutes()
    const before = new Map(this.#found)
    for (const key of [OWN, ...keys]) this.#found.delete(key)
    for (const family of [4, 6] as const) {
      await this.#ask(this.#ownQuestions(family), undefined, before)
      for (let at = 0; at < keys.length; at += TOGETHER) {
        if (at > 0) await turn()
        const asked = keys.slice(at, at + TOGETHER).flatMap((key) => this.#questions(key, family, within))
        await this.#ask(asked, this.#cameFrom(family), before)
      }
    }
    const { leases } = this.#deps.peers
    for (const key of this.#found.keys()) if (key !== OWN && !leases.has(key)) this.#found.delete(key)
    this.#report()
  }

  /** Other programs' routes in the main table that lead into the pod network, few if any. */
  #foreignRoutes(): readonly Route[] {
    return [...this.#deps.reconciler.observed.values()].filter(
      (object): object is Route =>
        object.kind === 'route' && object.protocol !== ROUTE_PROTOCOL && object.destination.length > 0
    )
  }

  /**
   * The lease's routes that are in the kernel; what is missing there is the reconciler's business. Asked with the
   * address of a first pod, and with one of each foreign route within the subnet.
   */
  #questions(key: string, family: Family, foreign: readonly Route[]): readonly Asked[] {
    const { reconciler } = this.#deps
    return reconciler.wantedBy(leaseOwnerOf(key)).flatMap((object) => {
      if (object.kind !== 'route' || object.destination.ip.family !== family) return []
      const have = reconciler.observed.get(keyOf(object))
      if (have === undefined || !sameObject(object, have)) return []
      const inside = foreign.filter(({ destination }) => contains(object.destination, destination))
      return [firstPod(object.destination), ...inside.map(({ destination }) => destination.ip)].map((ip) => ({
        ...{ key, route: object, ip }
      }))
    })
  }

  /** The bridge's own route, by which packets reach this node's pods. */
  #ownQuestions(family: Family): readonly Asked[] {
    const { bridge, reconciler, place } = this.#deps
    const own = place()?.node.subnet[family]
    if (own === undefined) return []
    return [...reconciler.observed.values()].flatMap((object) =>
      object.kind === 'route' && object.device === bridge && samePrefix(network(object.destination), network(own))
        ? [{ key: OWN, route: object, ip: firstPod(own) }]
        : []
    )
  }

  /** `before`: what was found in the last round, which is kept where the kernel does not answer. */
  async #ask(asked: readonly Asked[], from: From, before: ReadonlyMap<string, Shadow>): Promise<void> {
    if (asked.length === 0) return
    const used = await this.#usedRoutes(asked, from)
    for (const [at, { key, route }] of asked.entries()) {
      const match = used[at]
      if (this.#found.has(key) || isRoute(match, route)) continue
      const shadow = match instanceof Error ? before.get(key) : await this.#shadow(route, match)
      if (shadow !== undefined) this.#found.set(key, shadow)
    }
  }

  async #usedRoutes(asked: readonly Asked[], from: From): Promise<readonly (Route | Error | undefined)[]> {
    const ips = asked.map(({ ip }) => ip)
    const used = await this.#deps.kernel.usedRoutes(ips, from).catch((error) => ips.map(() => toError(error)))
    const error = used.find((match) => match instanceof Error)
    if (error !== undefined)
      this.#deps.log.debug({ reason: reasonOf(error) }, "can't look up the routes to pods of other nodes")
    return used
  }

  /** As a pod's packet: rules may depend on where a packet comes from. */
  #cameFrom(family: Family): From {
    const { bridge, reconciler, place } = this.#deps
    const own = place()?.node.subnet[family]
    const isUp = linkNamed(reconciler.observed, bridge)?.up === true
    return own === undefined || !isUp ? undefined : { device: bridge, source: firstPod(own) }
  }

  async #shadow({ destination }: Route, match: Route | undefined): Promise<Shadow> {
    const subnet = formatPrefix(destination)
    if (match === undefined)
      return {
        text: `the kernel does not send packets to ${subnet}, although weftd's route is there`,
        cure: `find the rule or the unreachable, prohibit or blackhole route: ip rule; ip route show table all | grep -E 'unreachable|prohibit|blackhole'`
      }
    const { family } = destination.ip
    const rule =
      match.table === MAIN_TABLE ? undefined : (await this.#rulesOf(family)).find(({ table }) => table === match.table)
    const whole = networksOf(this.#deps.place()?.conf)[family] ?? destination
    return {
      text: `packets to ${subnet} take "${textOf(match)}"${rule ? ` (rule ${rule.text})` : ''} instead of weftd's route`,
      cure: cureOf(match, whole, rule === undefined || rule.priority === 0 ? undefined : rule.priority - 1)
    }
  }

  #rulesOf(family: Family): ReturnType<Kernel['rules']> {
    return this.#deps.kernel.rules(family)
  }

  #report(): void {
    const { health, peers } = this.#deps
    const [first] = this.#found
    if (first === undefined) {
      health.clear('ROUTE_SHADOWED')
      return
    }
    const [key, { text, cure }] = first
    const whose = key === OWN ? 'this node' : (peers.leases.get(key)?.node ?? `lease ${key}`)
    const others = this.#found.size - 1
    const more = others === 0 ? '' : ` (and to ${others} more node${others === 1 ? '' : 's'})`
    health.raise('ROUTE_SHADOWED', `${whose}: ${text}${more}`, cure)
  }
}

/**
 * Names the very route that the kernel uses: one of the subnet's length may be weftd's own. A route that is wider than
 * the pod network, as a VPN's default route, is needed for other packets and stays. `pref`: of a rule that comes first.
 */
function cureOf(match: Route, whole: Prefix, pref: number | undefined): string {
  const { destination, type, device } = match
  const ip = whole.ip.family === 6 ? 'ip -6' : 'ip'
  if (type === 'local' && destination.length === width(destination.ip.family)) {
    const address = formatIp(destination.ip)
    return `remove the address ${address} from ${device}; its prefix: ${ip} address show dev ${device} to ${address}`
  }
  const remove = `run: ${deletionOf(match)}; if it comes back, end what adds it`
  if (pref === undefined) return remove
  const rule = `${ip} rule add to ${formatPrefix(whole)} lookup main pref ${pref}`
  return contains(whole, destination) ? `run: ${rule}; or remove that route: ${deletionOf(match)}` : `run: ${rule}`
}

const isRoute = (match: Route | Error | undefined, { destination, table, protocol, device }: Route): boolean =>
  match !== undefined &&
  !(match instanceof Error) &&
  match.table === table &&
  match.protocol === protocol &&
  match.device === device &&
  samePrefix(network(match.destination), network(destination)) &&
  match.destination.length === destination.length

/** The first address that a pod can have: after those of the network and of the gateway. */
function firstPod(subnet: Prefix): Ip {
  const { ip } = network(subnet)
  return subnet.length > width(ip.family) - 2 ? ip : (offset(ip, 2n) ?? ip)
}
