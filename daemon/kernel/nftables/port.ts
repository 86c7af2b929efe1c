// How kernel.ts reaches the firewall: nft-* and accept objects are read and written by firewall.ts and iptables-legacy.ts behind this port.
import type { Change } from '../../state/difference.ts'
import type { Observation, Outcome, Sender } from '../../state/kernel.ts'
import type { KernelObject } from '../../state/object.ts'

/** What a firewall notification says: one object changed, or so much may have changed that the port wants to be read again. */
export type FirewallChange =
  | Extract<Observation, { readonly kind: 'changed' }>
  /** Notifications were lost, or a foreign chain changed and only a new `read` can tell the outcome. `why` goes into the log. */
  | { readonly kind: 'reread'; readonly why: string; readonly by?: Sender; readonly at: number }

export interface FirewallPort extends AsyncDisposable {
  /**
   * Every nft-chain, nft-set, nft-element and accept there is. `interest` is the one that was given to `Kernel.observe`: a table nobody is interested in need
   * not be read element by element. Errors: KernelError when the tables can't be read at all.
   */
  read(interest: (object: KernelObject) => boolean): Promise<readonly KernelObject[]>
  /**
   * Applies changes of nft-* and accept objects, in order, as one transaction where possible; one outcome per change, in that order. Never throws for a change.
   * `remove` of what is gone already succeeds.
   */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
  /** See Kernel.removeTables. */
  removeTables(): Promise<readonly string[]>
  /** What changes from the call of `changes` on (subscribed at once, not at the first `next`), until the signal. Ends quietly when the signal fires. */
  changes(signal: AbortSignal): AsyncIterable<FirewallChange>
}
