// The kernel as a port: what the daemon asks of Linux. daemon/kernel/ implements it; unit tests use a Map with injected failures.
import type { Ip } from '../../ipam/address.ts'
import type { Change } from './difference.ts'
import type { KernelObject, Key, Link, State } from './object.ts'

/** Who changed something: the process behind a notification's port id. `self` is weftd. Links and FDB entries carry no port id. */
export type Sender = { readonly self: boolean; readonly pid: number; readonly name: string }

export type Observation =
  /** A complete dump: at start, and again whenever notifications may have been lost or objects went without one. */
  | {
      readonly kind: 'everything'
      readonly state: State
      readonly why: string
      /** Milliseconds of the monotonic clock: changes acknowledged before are in `state`. */
      readonly at: number
    }
  /** One object was made, changed (`object`) or went (`undefined`). `at`: milliseconds of the monotonic clock. */
  | {
      readonly kind: 'changed'
      readonly key: Key
      readonly object: KernelObject | undefined
      readonly by?: Sender
      readonly at: number
    }

export type Outcome = { readonly change: Change; readonly error?: Error }

/** The first error among outcomes, with its change. */
export function failureIn(
  outcomes: readonly Outcome[]
): { readonly change: Change; readonly error: Error } | undefined {
  for (const { change, error } of outcomes) if (error !== undefined) return { change, error }
  return undefined
}

/** Another network namespace, entered for one verb: a socket that was opened inside it. */
export interface Sandbox extends Disposable {
  /** Links, addresses, routes and the named sysctls (paths below /proc/sys, `net/…`) as they are inside. */
  read(sysctls?: readonly string[]): Promise<State>
  /** Makes a link inside that stands on a device of the host (`form.madeOn`), as a macvlan does. */
  bring(link: Link): Promise<Error | undefined>
  /** As `Kernel.apply`, inside. */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
}

export interface Kernel extends AsyncDisposable {
  /**
   * First one `everything`, then what changes, until the signal. Only objects that `interest` accepts. Where `held` has an object that says the same as the
   * kernel, that very object is what is told: thousands of routes are kept once, not twice.
   */
  observe(
    interest: (object: KernelObject) => boolean,
    signal: AbortSignal,
    held?: (key: Key) => KernelObject | undefined
  ): AsyncIterable<Observation>
  /**
   * Sends the changes in their order (see order.ts) in as few system calls as possible; one outcome per change, in that order.
   * A failed change does not stop the others. `remove` of what is gone already succeeds. Removed links have left the kernel's lists when the promise resolves.
   */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
  /** Removes Weft's nftables tables with all that is in them, also what another version left there. Never throws: resolves with the kernel's complaints. */
  removeTables(): Promise<readonly string[]>
  /** Opens the namespace at `path` (a file on nsfs). Errors: it does not exist, is no network namespace, or is the daemon's own and may not be. */
  sandbox(path: string, mayBeOwn?: boolean): Promise<Sandbox>
  /** Asks for one more complete dump, which `observe` then yields: the slow check behind the notifications. `why` ends up in the observation. */
  recheck(why: string): void
  /**
   * Resolves when a device of the host is operationally up or its state not known yet (RFC 2863), which is when a bridge passes packets through it: a pair that
   * had no carrier gets it a moment after its other end was set up. `false`: not within `milliseconds`.
   */
  runs(device: string, milliseconds: number): Promise<boolean>
  /** `ip route get`: how the host reaches `ip`; `undefined` when it can't. */
  routeTo(ip: Ip): Promise<Way | undefined>
}

/** The device and source address by which the host reaches an address. */
export type Way = {
  readonly device: string
  readonly source?: Ip
  readonly gateway?: Ip
  /** Bytes that the way carries, where the kernel was told or has learned that it is less than what the device does. */
  readonly mtu?: number
}
