// The interface to the Linux kernel. daemon/kernel/ implements it; unit tests use a Map with injected failures.
import type { Family, Ip, Prefix } from '../../ipam/address.ts'
import type { Change } from './difference.ts'
import { type KernelObject, type Key, keyOf, type Link, type Route, type State } from './object.ts'

/**
 * Who changed something: the process behind a notification's port id. `self` is weftd. Links and FDB entries carry no
 * port id.
 */
export type Sender = { readonly self: boolean; readonly pid: number; readonly name: string }

export type Observation =
  /**
   * A complete dump: at start, and again whenever notifications may have been lost or objects were removed without one.
   */
  | {
      readonly kind: 'everything'
      readonly state: State
      readonly why: string
      /** Milliseconds of the monotonic clock: changes acknowledged before it are in `state`. */
      readonly at: number
      /** The same for objects of whose changes by weftd nothing tells it (`isAnnounced`): the dump reads them earlier. */
      readonly unannouncedAt: number
    }
  /** One object was created, changed (`object`) or removed (`undefined`). `at`: milliseconds of the monotonic clock. */
  | {
      readonly kind: 'changed'
      readonly key: Key
      readonly object: KernelObject | undefined
      readonly by?: Sender
      readonly at: number
    }

export type Outcome = {
  readonly change: Change
  readonly error?: Error
  /** The kernel had it already: nothing was written. Only of sysctls, which are read first. */
  readonly unchanged?: true
}

/** The first error among outcomes, with its change; with `asked` only of these objects. */
export function failureIn(
  outcomes: readonly Outcome[],
  asked?: readonly KernelObject[]
): { readonly change: Change; readonly error: Error } | undefined {
  const keys = asked && new Set(asked.map(keyOf))
  for (const { change, error } of outcomes)
    if (error !== undefined && (keys === undefined || keys.has(keyOf(change.object)))) return { change, error }
  return undefined
}

/**
 * The first error of a removal: for who gives up what it wanted. That others want the same object and it can't be set
 * as they do at the moment (its device may just be going) is no failure of this one.
 */
export const removalFailureIn = (outcomes: readonly Outcome[]): Error | undefined =>
  outcomes.find(({ change, error }) => change.do === 'remove' && error !== undefined)?.error

/** Another network namespace, opened for one verb: a socket created inside it. */
export interface Sandbox extends Disposable {
  /** Links, addresses, routes and the named sysctls (paths below /proc/sys, `net/…`) inside it. */
  read(sysctls?: readonly string[]): Promise<State>
  /** Creates a link inside it on a device of the host (`form.madeOn`), such as a macvlan. */
  bring(link: Link): Promise<Error | undefined>
  /** Like `Kernel.apply`, inside it. */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
}

export interface Kernel extends AsyncDisposable {
  /**
   * First one `everything`, then changes, until the signal. Only objects that `interest` accepts. If `held` has an
   * object equal to the kernel's, that object is reported itself: thousands of routes are stored once, not twice.
   */
  observe(
    interest: (object: KernelObject) => boolean,
    signal: AbortSignal,
    held?: (key: Key) => KernelObject | undefined
  ): AsyncIterable<Observation>
  /**
   * Sends the changes in this order (see order.ts) in as few system calls as possible; one outcome per change, in the
   * same order. A failed change does not stop the others. `remove` of a missing object succeeds. Removed links have
   * left the kernel's lists when the promise resolves.
   */
  apply(changes: readonly Change[]): Promise<readonly Outcome[]>
  /**
   * Removes Weft's nftables tables with all that is in them, also what another version left there. Never throws:
   * resolves with the kernel's complaints.
   */
  removeTables(): Promise<readonly string[]>
  /**
   * Removes chains of other programs by their names, with the rules that jump there, from nftables and from iptables on
   * nftables; those that do not exist are no error. Errors: the kernel's complaint; nothing is removed then.
   */
  removeOtherChains(names: readonly string[]): Promise<void>
  /**
   * Opens the namespace at `path` (a file on nsfs). Errors: it does not exist, is not a network namespace, or is the
   * daemon's own, which is not allowed.
   */
  sandbox(path: string, mayBeOwn?: boolean): Promise<Sandbox>
  /**
   * Requests another complete dump, which `observe` then yields: the slow check behind the notifications. `why` is
   * passed on to the observation.
   */
  recheck(why: string): void
  /**
   * Resolves when a device of the host is operationally up, or its state is unknown (RFC 2863), which is when a bridge
   * forwards through it: a veth without carrier gets it a moment after its other end was set up. `false`: not within
   * `milliseconds`.
   */
  runs(device: string, milliseconds: number): Promise<boolean>
  /** Whether bridges of this kernel can keep VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING). Tried once. */
  filtersVlans(): Promise<boolean>
  /** Whether the host has a device of this name at this moment, whatever the notifications that were read say. */
  exists(device: string): boolean
  /** The index of that device; `undefined` already while it is being deleted. */
  indexOf(device: string): number | undefined
  /** `ip route get`: how the host reaches `ip`; `undefined` when it can't. */
  routeTo(ip: Ip): Promise<RouteLookup | undefined>
  /**
   * The same for many addresses in one system call, in their order; an error where the kernel did not answer for that
   * address. Some ten microseconds each on the event loop: callers pass a hundred at a time.
   */
  routesTo(ips: readonly Ip[]): Promise<readonly (RouteLookup | Error | undefined)[]>
  /**
   * The routes of the tables, policy rules applied, that the kernel uses for packets to these addresses; `undefined`
   * where it would not send them, an error where it did not answer. `from`: for packets that it forwards, from that
   * source on that device; otherwise, or where it would not accept such a packet, for its own.
   */
  usedRoutes(
    ips: readonly Ip[],
    from?: { readonly device: string; readonly source: Ip }
  ): Promise<readonly (Route | Error | undefined)[]>
  /** The policy rules of a family that look up a table, in the kernel's order. */
  rules(family: Family): Promise<readonly PolicyRule[]>
  /**
   * Calls `listener` when another program changes routes or policy rules of the host, and when such a change may have
   * been missed.
   */
  onRouting(listener: (change: RoutingChange) => void): void
}

/** `text`: as `ip rule` prints it, `5270: from all lookup 52`. */
export type PolicyRule = { readonly priority: number; readonly table: number; readonly text: string }

/** `destination`: of the route that was added, changed or removed, in any table. Absent: any route may differ. */
export type RoutingChange = { readonly destination?: Prefix }

/** The route by which the host reaches an address. */
export type RouteLookup = {
  readonly device: string
  readonly source?: Ip
  readonly gateway?: Ip
  /** Path MTU in bytes, if a route or the kernel's path MTU discovery says that it is below that of the device. */
  readonly mtu?: number
  /** The device resolves no next hops (`pointToPoint` of its link); only set by callers that know the link. */
  readonly pointToPoint?: true
}
