// nftables chains, maps and sets shared by all pods of the host: created for the first pod that needs them, removed
// only with the device that they name.
import { isolatedBridgeIn } from '../firewall/bridge-ports.ts'
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
      const device = deviceIn(object)
      if (device !== undefined) this.#byDevice.set(device, (this.#byDevice.get(device) ?? new Set()).add(key))
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

  /** Devices that any of them is of. */
  get devices(): readonly string[] {
    return [...this.#byDevice.keys()]
  }
}

/** The device without which the object has no meaning. Conditions of host ports name devices, too, but outlast them. */
const deviceIn = (object: KernelObject): string | undefined =>
  object.kind === 'nft-element' ? /^"([^"]+)"$/.exec(object.key)?.[1] : (isolatedBridgeIn(object) ?? deviceOf(object))
