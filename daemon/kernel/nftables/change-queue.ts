// Applies changes to the firewall: those that arrive while a transaction runs share the next one.
import { toError } from '../../base/error.ts'
import type { Change } from '../../state/difference.ts'
import type { PodSide } from '../../state/foreign-chain.ts'
import type { Outcome } from '../../state/kernel.ts'
import type { AdminCall, ForeignAccept, IptablesChain, KernelObject } from '../../state/object.ts'
import type { RequestSocket } from '../netlink/request-socket.ts'
import { applyAccepts } from './apply-accepts.ts'
import { commandsFor, type Step } from './command.ts'
import { elementBatch } from './elements.ts'
import type { ForeignReader } from './foreign-reader.ts'
import type { LegacyIptables } from './iptables-legacy.ts'
import type { OwnIptables } from './iptables-own.ts'
import type { NftSession, RunNft } from './session.ts'
import { applySteps, type Failures } from './transaction.ts'

export type ChangeDeps = {
  readonly nft: NftSession
  /** For elements and accepts. nf_tables transactions wait for each other, but not for the rtnl lock. */
  readonly socket: RequestSocket
  readonly legacy: LegacyIptables
  readonly foreign: ForeignReader
  readonly iptables: OwnIptables
  /** What other programs' rules are judged by now. */
  readonly side: () => PodSide
  readonly onDone: (change: Change) => void
  /** Everything that waited was tried. */
  readonly onApplied: () => void
}

type Waiting = { readonly changes: readonly Change[]; readonly resolve: (outcomes: readonly Outcome[]) => void }

export class ChangeQueue {
  readonly #deps: ChangeDeps
  #waiting: Waiting[] = []
  #applying = false

  constructor(deps: ChangeDeps) {
    this.#deps = deps
  }

  apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    const { promise, resolve } = Promise.withResolvers<readonly Outcome[]>()
    this.#waiting.push({ changes, resolve })
    if (!this.#applying) {
      this.#applying = true
      queueMicrotask(() => void this.#applyWaiting())
    }
    return promise
  }

  async #applyWaiting(): Promise<void> {
    while (this.#waiting.length > 0) {
      const round = this.#waiting
      this.#waiting = []
      const failures = await this.#applyRound(round.flatMap(({ changes }) => changes))
      for (const { changes, resolve } of round) {
        resolve(
          changes.map((change) => {
            const error = failures.get(change)
            if (error === undefined) this.#deps.onDone(change)
            return error === undefined ? { change } : { change, error }
          })
        )
      }
    }
    this.#applying = false
    this.#deps.onApplied()
  }

  async #applyRound(changes: readonly Change[]): Promise<Failures> {
    const failures: Failures = new Map()
    const legacy = changes.filter(isLegacy)
    const chains = changes.filter(isOwnIptables)
    const native = changes.filter((change) => !isLegacy(change) && !isOwnIptables(change))
    try {
      if (native.length > 0) {
        const found = await this.#deps.nft.exclusive((run) => this.#applyNative(run, native))
        for (const [change, error] of found) failures.set(change, error)
      }
    } catch (error) {
      for (const change of native) failures.set(change, toError(error))
    }
    for (const [change, error] of await this.#deps.iptables.apply(chains)) failures.set(change, error)
    for (const change of legacy) {
      try {
        await this.#deps.legacy.apply(change, this.#deps.side())
      } catch (error) {
        failures.set(change, toError(error))
      }
    }
    return failures
  }

  async #applyNative(run: RunNft, changes: readonly Change[]): Promise<Failures> {
    if (await this.#applyElements(changes)) return new Map()
    const failures: Failures = new Map()
    const accepts = changes.filter(isAccept)
    if (accepts.length > 0) {
      const done = await applyAccepts(this.#deps.socket, this.#deps.foreign, accepts, this.#deps.side())
      for (const [change, error] of done) failures.set(change, error)
    }
    const foreign = changes.some(({ object }) => object.kind === 'admin-call') ? await this.#deps.foreign.read() : []
    const steps = changes.flatMap((change): readonly Step[] => {
      if (isAccept(change)) return []
      try {
        return [{ change, commands: commandsFor(change, foreign) }]
      } catch (error) {
        failures.set(change, toError(error))
        return []
      }
    })
    const refused = await applySteps(run, steps)
    // Our own transactions are not notified.
    if (steps.some(({ change }) => change.object.kind === 'admin-call')) this.#deps.foreign.touchAll()
    return new Map([...failures, ...refused])
  }

  /**
   * `false`: not all are elements, or the kernel refused one; nothing is applied then, and libnftables finds out which
   * can be.
   */
  async #applyElements(changes: readonly Change[]): Promise<boolean> {
    const batch = elementBatch(changes)
    return batch !== undefined && (await this.#deps.socket.transact(batch)).every((failure) => failure === undefined)
  }
}

export const isForeign = (object: KernelObject): object is ForeignAccept | AdminCall =>
  object.kind === 'accept' || object.kind === 'admin-call'

export const isIptablesChain = (object: KernelObject): object is IptablesChain => object.kind === 'iptables-chain'

const isOwnIptables = (change: Change): change is Change & { readonly object: IptablesChain } =>
  isIptablesChain(change.object)

const isLegacy = (change: Change): change is Change & { readonly object: ForeignAccept | AdminCall } =>
  isForeign(change.object) && change.object.tool === 'iptables-legacy'

const isAccept = (change: Change): change is Change & { readonly object: ForeignAccept } =>
  change.object.kind === 'accept'
