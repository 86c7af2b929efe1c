// This node's interface to the other nodes: chosen from the kernel's state; waits while no interface is suitable.
import { FAMILIES, type Family, type Ip, type PerFamily, perFamily, sameIp } from '../../ipam/address.ts'
import { Backoff, retry } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { NetConf } from '../config/net-conf.ts'
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Kernel, RouteLookup } from '../state/kernel.ts'
import { chooseInterface, type InterfaceChoice, type InterfaceOptions } from './choose-interface.ts'
import { familiesOf } from './place.ts'

export type InterfaceDeps = {
  readonly kernel: Pick<Kernel, 'routeTo'>
  readonly reconciler: Pick<Reconciler, 'observed'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly recognises: InterfaceOptions['recognises']
  /** Which interface the administrator wants. */
  readonly interfaceOptions: Omit<InterfaceOptions, 'families' | 'reaching' | 'recognises' | 'published'> & {
    readonly canReach?: Ip
  }
}

/** Milliseconds until the next attempt. */
const RETRY = 1_000

/** Published addresses that are remembered of each family. */
const MOST_PUBLISHED = 8

export class NodeInterface {
  readonly #deps: InterfaceDeps
  readonly #published: { [F in Family]?: readonly Ip[] }
  #isServing = false

  /** `remembered`: the addresses that the lease of an earlier weftd publishes. */
  constructor(deps: InterfaceDeps, remembered: PerFamily<Ip> = {}) {
    this.#deps = deps
    this.#published = Object.fromEntries(perFamily(remembered).map(([family, ip]) => [family, [ip]]))
  }

  /**
   * Addresses that a lease in the store publishes, the likeliest one first: preferred like those of a remembered lease,
   * on an interface that has them.
   */
  hasPublished(publicIps: readonly PerFamily<Ip>[]): void {
    for (const family of FAMILIES) {
      const ips = publicIps.flatMap((publicIp) => publicIp[family] ?? [])
      if (ips.length > 0) this.#published[family] = ips.slice(0, MOST_PUBLISHED)
    }
  }

  /** This node publishes these addresses of its interface from now on. */
  publishes(localIp: PerFamily<Ip>): void {
    this.#isServing = true
    for (const [family, ip] of perFamily(localIp)) {
      const before = this.#published[family] ?? []
      if (before.some((each) => sameIp(each, ip))) continue
      this.#published[family] = [...before, ip].slice(-MOST_PUBLISHED)
    }
  }

  /** Resolves once there is one; until then the condition NO_INTERFACE lists the candidates. */
  async untilChosen(conf: NetConf, signal: AbortSignal): Promise<InterfaceChoice> {
    const { health } = this.#deps
    const onError = (error: unknown) => {
      if (!(error instanceof WeftError)) throw error
      health.raise('NO_INTERFACE', reasonOf(error), error.cure)
    }
    const choice = await retry(() => this.choose(conf), { signal, backoff: Backoff.constant(RETRY), onError })
    health.clear('NO_INTERFACE')
    return choice
  }

  /** Errors: NO_INTERFACE with each candidate and the reason against it. */
  async choose(conf: NetConf): Promise<InterfaceChoice> {
    const { interfaceOptions, kernel, reconciler, recognises } = this.#deps
    const { canReach, ...options } = interfaceOptions
    const route = canReach === undefined ? undefined : await kernel.routeTo(canReach)
    const reaching = canReach === undefined ? {} : { reaching: { target: canReach, ...(route && reached(route)) } }
    const wanted = { families: familiesOf(conf), published: this.#published, isServing: this.#isServing }
    return chooseInterface(reconciler.observed, { ...options, ...reaching, ...wanted, recognises })
  }
}

const reached = ({ device, source }: RouteLookup) => ({ device, ...(source && { source }) })
