// The firewall's interface to kernel/kernel.ts: reads and writes nft-* and accept objects. firewall.ts implements it.
import type { Change } from '../../state/difference.ts'
import type { Observation, Outcome, Sender } from '../../state/kernel.ts'
import type { KernelObject } from '../../state/object.ts'

/** One object changed, or so much may have changed that `read` must be called again. */
export type FirewallChange =
  | Extract<Observation, { readonly kind: 'changed' }>
  /**
   * Notifications were lost, or another program's chain changed and only a new `read` shows the result. `why` is
   * logged.
   */
  | { readonly kind: 'reread'; readonly why: string; readonly by?: Sender; readonly at: number }

export interface FirewallPort extends AsyncDisposable {
  /**
   * All nft-chain, nft-set, nft-element and accept objects. `interest` is that of `Kernel.observe`: a table of no
   * interest need not be read element by element. Errors: KernelError when the tables can't be read at all.
   */
  read(interest: (object: KernelObject) => boolean): Promise<readonly KernelObject[]>
  /**
   * Applies changes of nft-* and accept objects, in order, as one transaction where possible; one outcome per change,
   * in that order. Never throws for a change. `remove` of what does not exist succeeds.
   */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
  /** See Kernel.removeTables. */
  removeTables(): Promise<readonly string[]>
  /** See Kernel.removeOtherChains. */
  removeOtherChains(names: readonly string[]): Promise<void>
  /**
   * Changes from this call on (subscribed at once, not at the first `next`), until the signal. Ends without an error
   * when the signal fires.
   */
  changes(signal: AbortSignal): AsyncIterable<FirewallChange>
}
