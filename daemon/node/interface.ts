// The interface by which this node talks to the others: chosen from what the kernel shows, waited for while there is none.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Ip } from '../../ipam/address.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { NetConf } from '../config/net-conf.ts'
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Kernel } from '../state/kernel.ts'
import { chooseInterface, type InterfaceChoice, type InterfaceOptions } from './choose-interface.ts'
import { familiesOf } from './place.ts'

export type InterfaceDeps = {
  readonly kernel: Pick<Kernel, 'routeTo'>
  readonly reconciler: Pick<Reconciler, 'observed'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly wish: Omit<InterfaceOptions, 'families' | 'reaching'> & { readonly canReach?: Ip }
}

/** Milliseconds until the host is looked at again. */
const AGAIN = 1_000

export class NodeInterface {
  readonly #deps: InterfaceDeps

  constructor(deps: InterfaceDeps) {
    this.#deps = deps
  }

  /** Resolves once there is one; until then the condition NO_INTERFACE lists the candidates. */
  async untilChosen(conf: NetConf, signal: AbortSignal): Promise<InterfaceChoice> {
    const { health } = this.#deps
    for (;;) {
      try {
        const choice = await this.choose(conf)
        health.clear('NO_INTERFACE')
        return choice
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        health.raise('NO_INTERFACE', reasonOf(error))
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  /** Errors: NO_INTERFACE with the candidates and why each lost. */
  async choose(conf: NetConf): Promise<InterfaceChoice> {
    const { wish: all, kernel, reconciler } = this.#deps
    const { canReach, ...wish } = all
    const reached = canReach === undefined ? undefined : await kernel.routeTo(canReach)
    const reaching =
      canReach === undefined ? {} : { reaching: { target: canReach, ...(reached && { device: reached.device }) } }
    return chooseInterface(reconciler.observed, { ...wish, ...reaching, families: familiesOf(conf) })
  }
}
