// The kernel's routes to the public addresses of other nodes, asked in shares that do not hold up the event loop.
import { setImmediate as turn } from 'node:timers/promises'
import { formatIp, type Ip, type PerFamily, perFamily } from '../../ipam/address.ts'
import type { PeerRoutes } from '../backend/backend.ts'
import { reasonOf, toError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Kernel, RouteLookup } from '../state/kernel.ts'
import { linkNamed, type State } from '../state/object.ts'

export type RouteLookupsDeps = {
  readonly kernel: Pick<Kernel, 'routesTo'>
  /** The links as observed. */
  readonly observed: () => State
  readonly log: Log
}

/** Addresses in one system call: one to two milliseconds with their answers. */
const TOGETHER = 100

export class RouteLookups {
  readonly #deps: RouteLookupsDeps
  readonly #routes = new Map<string, RouteLookup>()
  readonly #unanswered = new Map<string, Ip>()
  /** Whether plain routes to the pods of these nodes pass packets, as probes found. */
  readonly #passes = new Map<string, boolean>()
  /** Those of which `ask` has not said yet that they changed. */
  readonly #noted = new Set<string>()

  constructor(deps: RouteLookupsDeps) {
    this.#deps = deps
  }

  of(publicIp: PerFamily<Ip>): PeerRoutes {
    return Object.fromEntries(
      perFamily(publicIp).flatMap(([family, ip]) => {
        const [route, passes] = [this.#routes.get(formatIp(ip)), this.#passes.get(formatIp(ip))]
        return route === undefined ? [] : [[family, passes === undefined ? route : { ...route, passes }]]
      })
    )
  }

  /** Addresses for which the kernel gave no answer, to be asked for again. */
  get unanswered(): readonly Ip[] {
    return [...this.#unanswered.values()]
  }

  /** Whether packets pass on a plain route to this node's pods; the next `ask` says that it changed. */
  note(ip: Ip, passes: boolean): void {
    this.#passes.set(formatIp(ip), passes)
    this.#noted.add(formatIp(ip))
  }

  /** Asks for the addresses whose route is not known yet. */
  async learn(ips: readonly Ip[]): Promise<void> {
    await this.ask(ips.filter((ip) => !this.#routes.has(formatIp(ip))))
  }

  /**
   * Asks for all of these; returns those whose answer differs from before. An address without a route keeps its last
   * one: where a link is down for a moment, or the host loses its default route, nothing better is known. So does one
   * whose look-up failed.
   */
  async ask(ips: readonly Ip[]): Promise<ReadonlySet<string>> {
    const changed = new Set<string>()
    for (let at = 0; at < ips.length; at += TOGETHER) {
      if (at > 0) await turn()
      const asked = ips.slice(at, at + TOGETHER)
      const routes = await this.#lookUp(asked)
      for (const [index, ip] of asked.entries()) {
        const [route] = routes[index] instanceof Error ? await this.#lookUp([ip]) : [routes[index]]
        const isOther = this.#take(ip, route)
        if (this.#noted.delete(formatIp(ip)) || isOther) changed.add(formatIp(ip))
      }
    }
    return changed
  }

  #take(ip: Ip, route: RouteLookup | Error | undefined): boolean {
    const address = formatIp(ip)
    if (route instanceof Error) this.#unanswered.set(address, ip)
    else this.#unanswered.delete(address)
    return route !== undefined && !(route instanceof Error) && this.#put(address, route)
  }

  forget(publicIp: PerFamily<Ip>): void {
    for (const [, ip] of perFamily(publicIp))
      for (const known of [this.#routes, this.#passes, this.#noted, this.#unanswered]) known.delete(formatIp(ip))
  }

  async #lookUp(ips: readonly Ip[]): Promise<readonly (RouteLookup | Error | undefined)[]> {
    const routes = await this.#deps.kernel.routesTo(ips).catch((error) => ips.map(() => toError(error)))
    const error = routes.find((route) => route instanceof Error)
    if (error !== undefined) this.#deps.log.debug({ reason: reasonOf(error) }, "can't look up a route to another node")
    return routes
  }

  #put(address: string, { device, gateway }: RouteLookup): boolean {
    const isPointToPoint = linkNamed(this.#deps.observed(), device)?.pointToPoint === true
    const before = this.#routes.get(address)
    const isSame =
      before?.device === device &&
      before.gateway?.value === gateway?.value &&
      before.gateway?.family === gateway?.family &&
      (before.pointToPoint ?? false) === isPointToPoint
    if (isSame) return false
    this.#routes.set(address, {
      device,
      ...(gateway !== undefined && { gateway }),
      ...(isPointToPoint && { pointToPoint: true })
    })
    return true
  }
}
