// A small version of the daemon's loop around the firewall: after each change, and each change of other programs'
// tables, the difference is applied.
import assert from 'node:assert/strict'
import { dropReasons, foreignAccepts, foreignDrops, unansweredReasons } from '../../daemon/firewall/foreign-accepts.ts'
import { ownFirewall } from '../../daemon/firewall/node-chains.ts'
import { Firewall } from '../../daemon/kernel/nftables/firewall.ts'
import type { FirewallChange } from '../../daemon/kernel/nftables/port.ts'
import { difference } from '../../daemon/state/difference.ts'
import { NO_SIDE, type PodSide } from '../../daemon/state/foreign-chain.ts'
import { type KernelObject, stateOf } from '../../daemon/state/object.ts'
import { mayRemove } from '../../daemon/state/ownership.ts'
import { changeText } from '../../daemon/state/text.ts'
import { type PerFamily, type Prefix, parsePrefix } from '../../ipam/address.ts'

const prefix = (text: string): Prefix => {
  const parsed = parsePrefix(text)
  assert.ok(parsed, text)
  return parsed
}
export const cluster: PerFamily<Prefix> = { 4: prefix('10.244.0.0/16'), 6: prefix('fd00:10::/48') }
export const subnet: PerFamily<Prefix> = { 4: prefix('10.244.1.0/24'), 6: prefix('fd00:10:0:1::/64') }
/** The chains of a node with both families. */
export const own = ownFirewall(subnet, cluster, { ipMasq: true, randomFully: true, forwardRules: true })

/** What is Weft's in nftables, where no backend has devices. */
export const ofWeft = (object: KernelObject): boolean => mayRemove(object, () => undefined)

/** Applies what is missing; returns what was. */
export async function bring(firewall: Firewall, desired: readonly KernelObject[]): Promise<readonly string[]> {
  const changes = difference(stateOf(desired), stateOf(await firewall.read(ofWeft)))
  for (const { error } of await firewall.apply(changes)) assert.ifError(error)
  return changes.map(changeText)
}

export class Keeper implements AsyncDisposable {
  readonly firewall: Firewall
  readonly seen: FirewallChange[] = []
  views = 0
  reasons: readonly string[] = []
  /** What FORWARD_DROPPED would say. */
  reported: readonly string[] = []
  readonly #end = new AbortController()
  readonly #loops: Promise<void>[]
  #desired: readonly KernelObject[]
  #turn: Promise<unknown> = Promise.resolve()

  constructor(resyncSeconds = 3600, side: PodSide = NO_SIDE, desired: readonly KernelObject[] = own) {
    this.firewall = new Firewall({ iptablesResyncSeconds: resyncSeconds })
    this.firewall.judgeBy(side)
    this.#desired = desired
    this.#loops = [this.#watch(), this.#follow(desired, side)]
  }

  async #watch(): Promise<void> {
    for await (const change of this.firewall.changes(this.#end.signal)) {
      this.seen.push(change)
      await this.settle()
    }
  }

  async #follow(base: readonly KernelObject[], side: PodSide): Promise<void> {
    for await (const view of this.firewall.foreign(this.#end.signal)) {
      assert.ifError(view.trouble)
      const drops = foreignDrops(view.tables, cluster, side)
      this.reasons = dropReasons(drops)
      this.views++
      this.reported = unansweredReasons(drops)
      this.#desired = [...base, ...foreignAccepts(drops)]
      await this.settle()
    }
  }

  /** What is missing, of all that is read anew. */
  async missing(): Promise<readonly string[]> {
    await this.#turn
    return difference(stateOf(this.#desired), stateOf(await this.firewall.read(ofWeft))).map(changeText)
  }

  settle(): Promise<unknown> {
    this.#turn = this.#turn.then(() => bring(this.firewall, this.#desired))
    return this.#turn
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort()
    await Promise.all(this.#loops)
    await this.#turn
    await this.firewall[Symbol.asyncDispose]()
  }
}
