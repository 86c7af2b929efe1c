// Index of the leases that nodes publish, by node and by subnet: turns changes of nodes into lease events. Heartbeats
// cause none.
import { WeftError } from '../../base/error.ts'
import { formatLeaseValue, isOlder, type Lease, leaseKey } from '../../lease/lease.ts'
import type { LeaseEvent } from '../../lease/store.ts'
import { type KubeNode, leaseOfNode } from './record.ts'

type Known = {
  /** The last valid lease. */
  readonly lease?: Lease
  /** Why the node's annotations cannot be parsed now. */
  readonly fault?: string
}

export class NodeLeases {
  readonly #prefix: string
  readonly #nodes = new Map<string, Known>()
  /** Names of the nodes that publish the same subnets: one in a healthy cluster. */
  readonly #holders = new Map<string, readonly string[]>()
  /** Names of the nodes that are Ready. */
  readonly #ready = new Set<string>()

  /** `prefix` as `annotationPrefix` returns it. */
  constructor(prefix: string) {
    this.#prefix = prefix
  }

  /** The first by name of the Ready nodes that publish a lease: all nodes eventually agree on it. */
  get first(): string | undefined {
    let first: string | undefined
    for (const name of this.#ready)
      if ((first === undefined || name < first) && this.#nodes.get(name)?.lease !== undefined) first = name
    return first
  }

  #noteReady({ name, ready }: KubeNode): void {
    if (ready) this.#ready.add(name)
    else this.#ready.delete(name)
  }

  /** A complete list. A node that cannot be parsed keeps its last valid lease. */
  *listed(nodes: readonly KubeNode[]): Generator<LeaseEvent, void> {
    const malformed: LeaseEvent[] = []
    const names = new Set(nodes.map((node) => node.name))
    for (const name of this.#nodes.keys()) if (!names.has(name)) this.#know(name, {})
    this.#ready.clear()
    for (const node of nodes) {
      this.#noteReady(node)
      const now = this.#read(node)
      if (now.kind === 'malformed') malformed.push(this.#fault(node.name, now.error))
      else this.#know(node.name, now.lease === undefined ? {} : { lease: now.lease })
    }
    yield { kind: 'list', leases: [...this.#holders.keys()].flatMap((key) => this.#held(key) ?? []) }
    yield* malformed
  }

  /** A node that is new or has changed. */
  *put(node: KubeNode): Generator<LeaseEvent, void> {
    this.#noteReady(node)
    const before = this.#nodes.get(node.name)
    const now = this.#read(node)
    if (now.kind === 'malformed') {
      if (before?.fault !== now.error.message) yield this.#fault(node.name, now.error)
      return
    }
    if (now.lease === undefined) {
      yield* this.#drop(node.name)
      return
    }
    const moved = before?.lease !== undefined && leaseKey(before.lease) !== leaseKey(now.lease)
    // Its earlier event was keyed by the node's name, since its subnets were unknown; later ones are keyed by subnet.
    if (moved || (before !== undefined && before.lease === undefined)) yield* this.#drop(node.name)
    this.#know(node.name, { lease: now.lease })
    const lease = this.#held(leaseKey(now.lease)) ?? now.lease
    if (moved || before?.fault !== undefined || !same(before?.lease, now.lease)) yield { kind: 'put', lease }
  }

  /** A node that no longer exists. If another node publishes the same subnets, its lease takes effect. */
  *gone(name: string): Generator<LeaseEvent, void> {
    this.#ready.delete(name)
    yield* this.#drop(name)
  }

  *#drop(name: string): Generator<LeaseEvent, void> {
    const before = this.#nodes.get(name)
    if (before === undefined) return
    this.#know(name, {})
    const key = before.lease === undefined ? name : leaseKey(before.lease)
    const lease = this.#held(key)
    yield lease === undefined ? { kind: 'gone', key } : { kind: 'put', lease }
  }

  /** The lease of the oldest node that publishes these subnets; the others are its rivals. */
  #held(key: string): Lease | undefined {
    const names = this.#holders.get(key) ?? []
    const leases = names.flatMap((name) => this.#nodes.get(name)?.lease ?? [])
    const [oldest, ...rivals] = leases.length > 1 ? leases.toSorted((a, b) => (isOlder(a, b) ? -1 : 1)) : leases
    return oldest === undefined || rivals.length === 0 ? oldest : { ...oldest, rivals }
  }

  #read(
    node: KubeNode
  ):
    | { readonly kind: 'read'; readonly lease: Lease | undefined }
    | { readonly kind: 'malformed'; readonly error: WeftError } {
    try {
      return { kind: 'read', lease: leaseOfNode(node, this.#prefix) }
    } catch (error) {
      if (error instanceof WeftError) return { kind: 'malformed', error }
      throw error
    }
  }

  /** The event is keyed by subnet where that is known, so that the reader finds the lease it has. */
  #fault(name: string, error: WeftError): LeaseEvent {
    const lease = this.#nodes.get(name)?.lease
    this.#know(name, { ...(lease !== undefined && { lease }), fault: error.message })
    return { kind: 'malformed', key: lease === undefined ? name : leaseKey(lease), error }
  }

  #know(name: string, known: Known): void {
    const before = this.#nodes.get(name)?.lease
    if (before !== undefined) {
      const key = leaseKey(before)
      const left = (this.#holders.get(key) ?? []).filter((other) => other !== name)
      if (left.length === 0) this.#holders.delete(key)
      else this.#holders.set(key, left)
    }
    if (known.lease === undefined && known.fault === undefined) this.#nodes.delete(name)
    else this.#nodes.set(name, known)
    if (known.lease === undefined) return
    const key = leaseKey(known.lease)
    this.#holders.set(key, [...(this.#holders.get(key) ?? []), name])
  }
}

const same = (a: Lease | undefined, b: Lease): boolean =>
  a !== undefined &&
  a.created === b.created &&
  leaseKey(a) === leaseKey(b) &&
  formatLeaseValue(a) === formatLeaseValue(b)
