// The desired state by owner, so that one lease or pod replaces only its own keys.
import { WeftError } from '../base/error.ts'
import { contradictions, merge } from '../state/merge.ts'
import {
  addressKeyOf,
  deviceOf,
  isSetting,
  type KernelObject,
  type Key,
  keyOf,
  type State,
  sameObject
} from '../state/object.ts'
import { textOf } from '../state/text.ts'

/**
 * Paths below /proc/sys that are desired: a complete check reads them, because the kernel announces few of their
 * changes.
 */
export const wantedSysctls = (desired: State): readonly string[] =>
  [...desired.values()].flatMap((object) => (object.kind === 'sysctl' ? [object.path] : []))

/** Devices whose offload is desired: a dump of links does not say it. */
export const wantedOffloads = (desired: State): readonly string[] =>
  [...desired.values()].flatMap((object) => (object.kind === 'offload' ? [object.device] : []))

/**
 * Several owners may want one key (two pods one bridge): what they want is merged by field, and the object stays until
 * the last of them no longer does. Where they contradict each other, the owner that was first counts.
 */
export class Desired {
  readonly #state = new Map<Key, KernelObject>()
  /** Arrays, since there are thousands of owners with three keys each. */
  readonly #keysOf = new Map<string, readonly Key[]>()
  /** Only keys with more than one owner, with what each wants. */
  readonly #shared = new Map<Key, Map<string, KernelObject>>()
  /** The owner, or the first of several. */
  readonly #ownerOf = new Map<Key, string>()
  /** Keys of what appears with its device and goes with it without a notification, by that device. */
  readonly #silent = new Map<string, Set<Key>>()

  get state(): State {
    return this.#state
  }

  owners(): IterableIterator<string> {
    return this.#keysOf.keys()
  }

  /** What `owner` wants; a shared object as it is merged. */
  wantedBy(owner: string): readonly KernelObject[] {
    const objects: KernelObject[] = []
    // Asked for each of thousands of leases.
    for (const key of this.#keysOf.get(owner) ?? []) {
      const object = this.#state.get(key)
      if (object !== undefined) objects.push(object)
    }
    return objects
  }

  /**
   * Sysctls and neighbour proxies that appear or go with a link, and VLANs that appear or go with its being on a
   * bridge, of which the kernel does not say so: those that are gone when `before` became `now`, and those that waited
   * for it, which is no repair.
   */
  silentChanges(
    before: KernelObject | undefined,
    now: KernelObject | undefined
  ): { readonly gone: readonly Key[]; readonly waiting: readonly Key[] } {
    const link = now ?? before
    const keys = link?.kind === 'link' ? this.#silent.get(link.name) : undefined
    if (keys === undefined) return { gone: [], waiting: [] }
    if (before === undefined) return { gone: [], waiting: [...keys] }
    const [index, newIndex] = [before, now].map((each) => (each?.kind === 'link' ? each.index : undefined))
    const isAnother = index !== undefined && newIndex !== undefined && index !== newIndex
    if (now === undefined || isAnother) return { gone: [...keys], waiting: [] }
    const [left, joined] = [before, now].map((each) => (each.kind === 'link' ? (each.master ?? '') : ''))
    const vlans = left === joined ? [] : [...keys].filter((key) => this.#state.get(key)?.kind === 'vlans')
    return joined === '' ? { gone: vlans, waiting: [] } : { gone: [], waiting: vlans }
  }

  /** Devices of VLANs that get another MTU because `before`, on which they are, became `now`. */
  followers(before: KernelObject | undefined, now: KernelObject | undefined): readonly Key[] {
    if (before?.kind !== 'link' || now?.kind !== 'link' || before.mtu === now.mtu || now.form?.type !== 'bridge')
      return []
    return [...this.#state].flatMap(([key, object]) =>
      object.kind === 'link' && object.form?.type === 'vlan' && object.form.parent === now.name ? [key] : []
    )
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

  /** What `owner` does not get because an earlier owner of the object wants it otherwise. */
  refusedTo(owner: string): readonly { readonly object: KernelObject; readonly error: WeftError }[] {
    return (this.#keysOf.get(owner) ?? []).flatMap((key) => {
      const [object, merged] = [this.#shared.get(key)?.get(owner), this.#state.get(key)]
      if (object === undefined || merged === undefined) return []
      const fields = contradictions(object, merged)
      return fields.length === 0 ? [] : [{ object, error: contradiction(object, merged, fields) }]
    })
  }

  /** Ends what any owner wants of these objects, and of the routes that the kernel adds with such an address. */
  forget(objects: readonly KernelObject[]): void {
    const gone = new Set(objects.map(keyOf))
    for (const [key, object] of this.#state) {
      const address = object.kind === 'route' ? addressKeyOf(object) : undefined
      if (address !== undefined && gone.has(address)) gone.add(key)
    }
    for (const [owner, wanted] of this.#keysOf) {
      const left = wanted.filter((key) => !gone.has(key))
      if (left.length === wanted.length) continue
      for (const key of wanted) if (gone.has(key)) this.#withdraw(key, owner)
      if (left.length === 0) this.#keysOf.delete(owner)
      else this.#keysOf.set(owner, left)
    }
  }

  #put(key: Key, owner: string, object: KernelObject): void {
    const first = this.#ownerOf.get(key)
    const known = this.#state.get(key)
    const sharers = this.#shared.get(key)
    if (first === undefined || known === undefined || (first === owner && sharers === undefined)) {
      this.#ownerOf.set(key, owner)
      this.#set(key, object)
      return
    }
    const owners = sharers ?? new Map([[first, known]])
    const before = owners.get(owner)
    owners.set(owner, object)
    this.#shared.set(key, owners)
    if (before === undefined) this.#set(key, merge(known, object))
    else if (!isSame(before, object)) this.#mergeAll(key, owners)
  }

  #withdraw(key: Key, owner: string): void {
    const owners = this.#shared.get(key)
    if (owners === undefined) {
      this.#ownerOf.delete(key)
      this.#drop(key)
      return
    }
    const left = owners.get(owner)
    owners.delete(owner)
    const [next] = owners
    if (next !== undefined) this.#ownerOf.set(key, next[0])
    // Usually all want the same: hundreds of pods on one bridge.
    if (left === undefined || next === undefined || !isSame(left, next[1])) this.#mergeAll(key, owners)
    if (owners.size === 1) this.#shared.delete(key)
  }

  #mergeAll(key: Key, owners: ReadonlyMap<string, KernelObject>): void {
    const [first, ...others] = owners.values()
    if (first !== undefined) this.#set(key, others.reduce(merge, first))
  }

  #set(key: Key, object: KernelObject): void {
    this.#state.set(key, object)
    const device = silentDeviceOf(object)
    if (device === undefined) return
    const keys = this.#silent.get(device)
    if (keys === undefined) this.#silent.set(device, new Set([key]))
    else keys.add(key)
  }

  #drop(key: Key): void {
    const device = silentDeviceOf(this.#state.get(key))
    this.#state.delete(key)
    if (device === undefined) return
    const keys = this.#silent.get(device)
    keys?.delete(key)
    if (keys?.size === 0) this.#silent.delete(device)
  }
}

const silentDeviceOf = (object: KernelObject | undefined): string | undefined =>
  object !== undefined &&
  (isSetting(object) || object.kind === 'proxy' || object.kind === 'vlans' || object.kind === 'wg-peer')
    ? deviceOf(object)
    : undefined

const isSame = (one: KernelObject, other: KernelObject): boolean => sameObject(one, other) && sameObject(other, one)

function contradiction(object: KernelObject, merged: KernelObject, fields: readonly string[]): WeftError {
  const wanted = textOf(object)
  return new WeftError(
    'WANTED_OTHERWISE',
    `${object.because ?? 'this call'} wants ${wanted}, but ${merged.because ?? 'another part of weftd'} already has it as ${textOf(merged)} (${fields.join(', ')})`,
    'make the two configurations agree, or let only one of them set it'
  )
}
