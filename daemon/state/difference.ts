// What must change so that the kernel holds what is desired: the one comparison behind start, repair, ADD, CHECK and `weftctl diff`.
import { type KernelObject, type Key, keyOf, type State, sameObject } from './object.ts'

export type Change = {
  readonly do: 'put' | 'remove'
  readonly object: KernelObject
  /** For `put`: what the kernel holds under the same key. */
  readonly instead?: KernelObject
}

/**
 * The changes that turn `observed` into `desired`, looking only at `keys` (default: every key of either). What the kernel holds and nobody desires is removed:
 * callers filter by ownership. Fields that a desired object leaves out are the kernel's choice, and what waits for its device is no difference.
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

/** A neighbour proxy on a device that is not there is not missed: nobody could ask it. */
export const waitsForItsDevice = (object: KernelObject, observed: State): boolean =>
  object.kind === 'proxy' && !observed.has(keyOf({ kind: 'link', name: object.device }))

export const put = (object: KernelObject): Change => ({ do: 'put', object })
