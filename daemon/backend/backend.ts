// What a backend is: a pure function from this node, its configuration and a lease to kernel objects. It makes no system call and knows no store.
import type { PerFamily } from '../../ipam/address.ts'
import type { Json, JsonObject } from '../config/net-conf.ts'
import type { Lease } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'

export type Backend<Config> = {
  /** The name in `Backend.Type` and in every lease. */
  readonly type: string
  /** The keys that `config` reads, besides Type. */
  readonly keys: readonly string[]
  /** Reads the backend's own keys. Errors: CONFIG_INVALID with path, value and rule. */
  config(keys: JsonObject): Config
  /** MTU in bytes that pods and subnet.env get; of the node's subnets only the families count. Errors: CONFIG_INVALID when the link does not carry what is configured. */
  mtu(node: Node, config: Config): number
  /** Bytes that a packet of pods has at the most between two nodes, with all that is put around it. Errors as `mtu`. */
  underlayMtu(node: Node, config: Config): number
  /** What peers must know of us, by tunnel family. */
  publish(node: Omit<Node, 'subnet'>, config: Config): PerFamily<Json>
  /** Our device and what hangs on it, whoever else is in the network. */
  own(node: Node, config: Config): readonly KernelObject[]
  /** What one remote lease asks for. Errors: LEASE_MALFORMED when its backend data make no sense. */
  peer(lease: Lease, node: Node, config: Config): readonly KernelObject[]
}

/** A backend whose configuration has been read. */
export type ConfiguredBackend = {
  readonly type: string
  readonly keys: readonly string[]
  mtu(node: Node): number
  underlayMtu(node: Node): number
  publish(node: Omit<Node, 'subnet'>): PerFamily<Json>
  own(node: Node): readonly KernelObject[]
  peer(lease: Lease, node: Node): readonly KernelObject[]
}
