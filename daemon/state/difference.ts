// Computes the changes from observed to desired state: the one comparison behind start, repair, ADD, CHECK and `weftctl
// diff`.
import { type KernelObject, type Key, keyOf, type State, sameObject } from './object.ts'

export type Change = {
  readonly do: 'put' | 'remove'
  readonly object: KernelObject
  /** For `put`: what the kernel has under the same key. */
  readonly instead?: KernelObject
}

/**
 * The changes that turn `observed` into `desired`, limited to `keys` (default: every key of either). Objects that are
 * only in `observed` are removed: callers filter by ownership. Fields that a desired object omits are the kernel's
 * choice, and an object that waits for its device is not a difference.
 */
export function difference(desired: State, observed: State, keys?: Iterable<Key>): readonly Change[] {
  const changes: Change[] = []
  for (const key of keys ?? new Set([...desired.keys(), ...observed.keys()])) {
    const [want, have] = [desired.get(key), observed.get(key)]
    if (want === undefined) {
      if (have !== undefined) changes.push({ do: 'remove', object: have })
    } else if (have !== undefined) {
      if (!sameObject(want, have)) changes.push({ do: 'put', object: want, instead: have })
    } else if (!waitsForItsDevice(want, observed)) changes.push({ do: 'put', object: want })
  }
  return changes
}

/**
 * A neighbour proxy without its device is not missing: nobody could send it a solicitation. And the route that the
 * kernel adds with an address is not missing before that.
 */
export function waitsForItsDevice(object: KernelObject, observed: State): boolean {
  if (object.kind === 'proxy') return !observed.has(keyOf({ kind: 'link', name: object.device }))
  if (object.kind !== 'route' || object.withAddress === undefined || object.device === undefined) return false
  return !observed.has(keyOf({ kind: 'address', device: object.device, prefix: object.withAddress }))
}

export const put = (object: KernelObject): Change => ({ do: 'put', object })
