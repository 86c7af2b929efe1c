// nftables chains, maps and sets shared by all pods of the host: created for the first pod that needs them, removed only
// with the device that they name.
import { deviceOf, type KernelObject, type Key, keyOf } from '../state/object.ts'

const OWNER = 'shared'

type Owned = readonly [owner: string, objects: readonly KernelObject[]]

export class SharedObjects {
  readonly #objects = new Map<Key, KernelObject>()
  readonly #byDevice = new Map<string, Set<Key>>()

  /**
   * All shared objects, those of one more pod included, with their owner. They only grow: a bridge keeps its
   * route_localnet, so it must keep its guard; and removing a base chain makes callers wait for a grace period.
   */
  with(more: readonly KernelObject[]): Owned {
    for (const object of more) {
      const key = keyOf(object)
      this.#objects.set(key, object)
      for (const device of devicesNamedBy(object)) {
        const keys = this.#byDevice.get(device) ?? new Set()
        this.#byDevice.set(device, keys.add(key))
      }
    }
    return [OWNER, [...this.#objects.values()]]
  }

  /** The rest, if any of them was of one of these devices, which are gone: another program has removed its bridge. */
  without(devices: readonly string[]): Owned | undefined {
    const keys = devices.flatMap((device) => [...(this.#byDevice.get(device) ?? [])])
    for (const key of keys) this.#objects.delete(key)
    for (const device of devices) this.#byDevice.delete(device)
    return keys.length === 0 ? undefined : this.with([])
  }

  /** Devices that any of them names. */
  get devices(): readonly string[] {
    return [...this.#byDevice.keys()]
  }
}

/** In nftables the names of devices are quoted. */
function devicesNamedBy(object: KernelObject): readonly string[] {
  const quoted = (text: string) => [...text.matchAll(/"([^"]+)"/g)].flatMap(([, name]) => name ?? [])
  if (object.kind === 'nft-element') return quoted(object.key)
  if (object.kind === 'nft-chain') return (object.rules ?? []).flatMap(quoted)
  const device = deviceOf(object)
  return device === undefined ? [] : [device]
}
