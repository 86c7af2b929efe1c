// Computes the changes from observed to desired state: the one comparison behind start, repair, ADD, CHECK and `weftctl
// diff`.
import {
  addressKeyOf,
  deviceOf,
  isSetting,
  type KernelObject,
  type Key,
  keyOf,
  linkNamed,
  type State,
  sameObject
} from './object.ts'

export type Change = {
  readonly do: 'put' | 'remove'
  readonly object: KernelObject
  /** For `put`: what the kernel has under the same key. */
  readonly instead?: KernelObject
}

/**
 * The changes that turn `observed` into `desired`, limited to `keys` (default: every key of either). Objects that are
 * only in `observed` are removed: callers filter by ownership. Fields that a desired object omits are the kernel's
 * choice, and an object that waits for its device is not a difference; but a setting that is requested now is tried,
 * since its device may be there and not observed yet.
 */
export function difference(
  desired: State,
  observed: State,
  keys?: Iterable<Key>,
  isRequested = false
): readonly Change[] {
  const changes: Change[] = []
  for (const key of keys ?? new Set([...desired.keys(), ...observed.keys()])) {
    const [want, have] = [desired.get(key), observed.get(key)]
    if (want === undefined) {
      if (have !== undefined) changes.push({ do: 'remove', object: have })
    } else if (have !== undefined) {
      const whole = isRequested ? want : withParentsMtu(want, observed)
      if (!sameObject(whole, have)) changes.push({ do: 'put', object: whole, instead: have })
    } else if (
      (isRequested && (isSetting(want) || want.kind === 'vlans')) ||
      !waitsForItsDevice(want, observed, desired)
    )
      changes.push({ do: 'put', object: want })
  }
  return changes
}

/**
 * The device of a VLAN has the MTU of the device it is on: the kernel lowers it with that, and never raises it again
 * (vlan.c, NETDEV_CHANGEMTU). A bridge gets the MTU of its ports only once it has one, after its VLANs' devices were
 * made. Not in requests: what is observed of the bridge may be older than the port that the request brings, and an MTU
 * above the bridge's is refused.
 */
function withParentsMtu(want: KernelObject, observed: State): KernelObject {
  if (want.kind !== 'link' || want.form?.type !== 'vlan' || want.mtu !== undefined) return want
  const mtu = linkNamed(observed, want.form.parent)?.mtu
  return mtu === undefined ? want : { ...want, mtu }
}

/**
 * A neighbour proxy without its device is not missing: nobody could send it a solicitation. Nor is a setting of a
 * device that is gone and that nobody makes (another program's bridge with a pod's host ports), the route that the
 * kernel adds with an address, before that, or the VLANs of a port that is on no bridge.
 */
export function waitsForItsDevice(object: KernelObject, observed: State, desired: State): boolean {
  if (object.kind === 'route') {
    const address = addressKeyOf(object)
    return address !== undefined && !observed.has(address)
  }
  if (object.kind === 'vlans') {
    const link = observed.get(keyOf({ kind: 'link', name: object.device }))
    return link?.kind !== 'link' || (link.form?.type !== 'bridge' && !link.master)
  }
  if (object.kind !== 'proxy' && object.kind !== 'wg-peer' && !isSetting(object)) return false
  const device = deviceOf(object)
  if (device === undefined) return false
  const link = keyOf({ kind: 'link', name: device })
  return !observed.has(link) && (object.kind === 'proxy' || !desired.has(link))
}

export const put = (object: KernelObject): Change => ({ do: 'put', object })
