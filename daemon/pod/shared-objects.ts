// nftables chains, maps and sets shared by all pods of the host: created for the first pod that needs them, never
// removed.
import { type KernelObject, type Key, keyOf } from '../state/object.ts'

const OWNER = 'shared'

export class SharedObjects {
  readonly #objects = new Map<Key, KernelObject>()

  /**
   * All shared objects, those of one more pod included, with their owner. They only grow: a bridge keeps its
   * route_localnet, so it must keep its guard; and removing a base chain makes callers wait for a grace period.
   */
  with(more: readonly KernelObject[]): readonly [owner: string, objects: readonly KernelObject[]] {
    for (const object of more) this.#objects.set(keyOf(object), object)
    return [OWNER, [...this.#objects.values()]]
  }
}
