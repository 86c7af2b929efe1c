// The desired state by owner, so that one lease or pod replaces only its own keys.
import { type KernelObject, type Key, keyOf, type State } from '../state/object.ts'

/**
 * Paths below /proc/sys that are desired: a complete check reads them, because the kernel does not announce their
 * changes.
 */
export const wantedSysctls = (desired: State): readonly string[] =>
  [...desired.values()].flatMap((object) => (object.kind === 'sysctl' ? [object.path] : []))

/** Several owners may want one key (two pods one bridge); the object stays until the last of them no longer does. */
export class Desired {
  readonly #state = new Map<Key, KernelObject>()
  /** Arrays, since there are thousands of owners with three keys each. */
  readonly #keysOf = new Map<string, readonly Key[]>()
  /** Only keys with more than one owner; the object of the last to want it counts. */
  readonly #shared = new Map<Key, Map<string, KernelObject>>()
  readonly #ownerOf = new Map<Key, string>()

  get state(): State {
    return this.#state
  }

  owners(): IterableIterator<string> {
    return this.#keysOf.keys()
  }

  /** What `owner` wants; a shared object as the last of its owners wants it. */
  wantedBy(owner: string): readonly KernelObject[] {
    return [...(this.#keysOf.get(owner) ?? [])].flatMap((key) => this.#state.get(key) ?? [])
  }

  /** Replaces what `owner` wants; returns all its keys, before and now. */
  replace(owner: string, objects: readonly KernelObject[]): ReadonlySet<Key> {
    const touched = new Set(this.#keysOf.get(owner))
    const now = new Set<Key>()
    for (const object of objects) {
      const key = keyOf(object)
      now.add(key)
      this.#put(key, owner, object)
    }
    for (const key of touched) if (!now.has(key)) this.#withdraw(key, owner)
    if (now.size === 0) this.#keysOf.delete(owner)
    else this.#keysOf.set(owner, [...now])
    for (const key of now) touched.add(key)
    return touched
  }

  /** Ends what any owner wants of these keys. */
  forget(keys: Iterable<Key>): void {
    const gone = new Set(keys)
    for (const [owner, wanted] of this.#keysOf) {
      const left = wanted.filter((key) => !gone.has(key))
      if (left.length === wanted.length) continue
      for (const key of wanted) if (gone.has(key)) this.#withdraw(key, owner)
      if (left.length === 0) this.#keysOf.delete(owner)
      else this.#keysOf.set(owner, left)
    }
  }

  #put(key: Key, owner: string, object: KernelObject): void {
    const holder = this.#ownerOf.get(key)
    if (holder !== undefined && holder !== owner) {
      const others = this.#shared.get(key) ?? new Map([[holder, this.#state.get(key) as KernelObject]])
      others.delete(owner)
      this.#shared.set(key, others.set(owner, object))
    } else this.#shared.get(key)?.set(owner, object)
    this.#ownerOf.set(key, owner)
    this.#state.set(key, object)
  }

  #withdraw(key: Key, owner: string): void {
    const others = this.#shared.get(key)
    others?.delete(owner)
    if (others !== undefined && this.#ownerOf.get(key) !== owner) {
      if (others.size === 1) this.#shared.delete(key)
      return
    }
    const last = others && [...others].at(-1)
    if (last === undefined) {
      this.#shared.delete(key)
      this.#ownerOf.delete(key)
      this.#state.delete(key)
    } else {
      this.#ownerOf.set(key, last[0])
      this.#state.set(key, last[1])
      if (others?.size === 1) this.#shared.delete(key)
    }
  }
}
