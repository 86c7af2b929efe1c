// Peers between kernel objects and a WireGuard device: what counts as observed, and what of a change is written.
import type { Change } from '../state/difference.ts'
import { type KernelObject, type Key, keyOf, sameObject } from '../state/object.ts'
import { SESSION_MS, Secret, sortedPrefixes, type WgPeer } from '../state/wireguard.ts'
import type { PeerChange, PeerState } from '../state/wireguard-port.ts'

/**
 * A peer that was just heard elsewhere than its lease says is behind NAT, or has moved: that is no difference. `now` in
 * milliseconds since 1970.
 */
export function observedPeer(
  device: string,
  peer: PeerState,
  desired: (key: Key) => KernelObject | undefined,
  now: number
): WgPeer {
  const { publicKey, endpoint, presharedKey, keepalive, traffic } = peer
  const found: WgPeer = {
    ...{ kind: 'wg-peer', device, publicKey, keepalive, traffic },
    ...(endpoint && { endpoint }),
    allowedIps: sortedPrefixes(peer.allowedIps),
    presharedKey: presharedKey === undefined ? null : new Secret(presharedKey)
  }
  if (endpoint === undefined || now - traffic.handshakeAt >= SESSION_MS) return found
  const wanted = desired(keyOf(found))
  if (wanted?.kind !== 'wg-peer') return { ...found, isHeard: true }
  return wanted.endpoint === undefined ? found : { ...found, endpoint: wanted.endpoint }
}

/** What differs from what the device has; of an endpoint at which the peer was just heard nothing. */
export function peerChange({ do: what, object, instead }: Change): PeerChange {
  const { publicKey, endpoint, allowedIps, presharedKey, keepalive } = object as WgPeer
  if (what === 'remove') return { publicKey, remove: true }
  const have = instead?.kind === 'wg-peer' ? instead : undefined
  const differs = (field: 'endpoint' | 'allowedIps' | 'presharedKey' | 'keepalive'): boolean =>
    have === undefined || !sameField(object as WgPeer, have, field)
  return {
    publicKey,
    ...(differs('endpoint') && have?.isHeard !== true && { endpoint }),
    ...(differs('presharedKey') && { presharedKey }),
    ...(differs('keepalive') && { keepalive }),
    ...(differs('allowedIps') && { allowedIps })
  }
}

/** Of both only this field is compared. */
function sameField(wanted: WgPeer, have: WgPeer, field: keyof WgPeer): boolean {
  const { kind, device, publicKey, allowedIps } = have
  const base = { kind, device, publicKey, allowedIps }
  return sameObject({ ...base, [field]: wanted[field] } as WgPeer, { ...base, [field]: have[field] } as WgPeer)
}
