// The interface of a lease store: reads the configuration, holds our lease, watches all leases.
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { LastConfiguration } from '../config/last.ts'
import type { Json, NetConf } from '../config/net-conf.ts'
import type { Condition } from '../health/conditions.ts'
import type { Report } from '../health/report.ts'
import type { Lease } from './lease.ts'

export type LeaseEvent =
  /**
   * A complete listing: what is not in it is gone, unless the listener doubts it. Comes first, and after every gap in
   * the watch.
   */
  | { readonly kind: 'list'; readonly leases: readonly Lease[] }
  | { readonly kind: 'put'; readonly lease: Lease }
  | { readonly kind: 'gone'; readonly key: string }
  /** A record that can't be understood. Skipped; whatever was known under its key stays as it was. */
  | { readonly kind: 'malformed'; readonly key: string; readonly error: WeftError }

/** Events of a store: leases, and the network configuration. */
export type StoreEvent =
  | LeaseEvent
  /** Comes with every list and whenever it changes; `undefined`: there is none any more. */
  | { readonly kind: 'configuration'; readonly text: string | undefined }

/** A request for a lease. */
export type LeaseRequest = {
  readonly node: string
  readonly network: NetConf
  readonly publicIp: PerFamily<Ip>
  /** The subnets of the previous subnet.env, if any. */
  readonly previous: PerFamily<Prefix>
  /** Pods of this node already have addresses of these subnets: no others are acceptable. */
  readonly only?: PerFamily<Prefix>
  readonly backendType: string
  /** Whether the backend data of a lease name a device of this host. */
  readonly namesOurDevice: (lease: Lease) => boolean
  /** Whether a lease is certainly another node's, although it publishes our address or has our earlier subnet. */
  readonly isAnothers?: (lease: Lease) => boolean
  /** Whether the backend data of two leases are those of different nodes; false where they identify no node. */
  readonly areOfTwoNodes?: (a: Lease, b: Lease) => boolean
  /** Networks and addresses of this host and its gateways: no subnet that overlaps one is chosen. */
  readonly occupied?: readonly Prefix[]
  /**
   * Backend data to publish, given the lease that was ours before, of which the backend keeps what peers must see
   * unchanged.
   */
  readonly backendData: (held: Lease | undefined) => PerFamily<Json>
}

/** What a store needs from the daemon. */
export type StoreDeps = {
  readonly log: Log
  /** Raises or clears a condition of health/conditions.ts by its code. */
  readonly report: Report
  /** The configuration that this node used last. */
  readonly lastConfiguration?: LastConfiguration | undefined
}

export interface Store extends AsyncDisposable {
  readonly type: string
  /** Where the configuration is, for messages: `the key /coreos.com/network/config in etcd at http://…`. */
  readonly configurationPlace: string
  /** The text of the network configuration; waits (raising a condition that says what for) until there is one. */
  configuration(signal: AbortSignal): Promise<string>
  /**
   * Takes our lease or takes it again; renews it until disposed. When it lapses or is deleted it is taken again with
   * the same subnet; when that is impossible the condition LEASE_LOST is raised. Errors: SUBNETS_EXHAUSTED; LEASE_LOST
   * when `only` is not available; what the configuration makes impossible.
   */
  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease>
  /**
   * The leases among which this node's earlier one is, for a weftd that remembers none; of a store with names of nodes
   * only those of this one. Waits for the store.
   */
  candidates?(node: string, signal: AbortSignal): Promise<readonly Lease[]>
  /**
   * When our lease ends unless it is renewed, in milliseconds since 1970; `undefined` where it is not known or does not
   * end, as a reservation.
   */
  leaseEnds?(): number | undefined
  /** Called once, when this node's network works: for a store in which other programs wait for that. */
  announce?(): void
  /** Called when a condition begins, changes or ends: for a store in which administrators look. */
  onCondition?(condition: Condition, active: boolean): void
  /**
   * Publishes what this node knows of its ways to the others, in place of what it published before; it goes with our
   * lease. Never fails: nothing depends on it.
   */
  publish?(report: string): void
  /** What all nodes have published, by the keys of their leases. Errors: the store does not answer. */
  reports?(): Promise<readonly { readonly key: string; readonly text: string }[]>
  /** The host's addresses have changed: a connection from one that is gone would hang until its keep-alive notices. */
  reconnect(): void
  /**
   * All leases, including ours, and all changes of the configuration. Reconnection, compaction and repeated lists are
   * up to the store. Ends only with the signal.
   */
  watch(signal: AbortSignal): AsyncIterable<StoreEvent>
}
