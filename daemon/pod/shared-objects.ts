// What pods stand on together on the host: chains, maps and sets that the first of them needs and that the last leaves behind.
import { type KernelObject, type Key, keyOf } from '../state/object.ts'

const OWNER = 'ground'

export class SharedObjects {
  readonly #objects = new Map<Key, KernelObject>()

  /**
   * All of it, as its owner's wish, with what one more pod needs. It only grows: a bridge keeps its route_localnet, and so must keep its guard; and chains
   * at hooks make the kernel wait when they go.
   */
  with(more: readonly KernelObject[]): readonly [owner: string, objects: readonly KernelObject[]] {
    for (const object of more) this.#objects.set(keyOf(object), object)
    return [OWNER, [...this.#objects.values()]]
  }
}
