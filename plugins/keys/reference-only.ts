// Keys of the reference plugins for what Weft does in another way, or not at all. One that asks for something that Weft
// does not do is refused by its name.
import { type Field, flag, member, oneOf, text } from '../cni/field.ts'
import { unsupported } from './readers.ts'

/** `ipMasqBackend`: Weft masquerades in its own nftables table; either backend's effect is the same. */
export function checkMasqueradeBackend(root: Field): void {
  oneOf(member(root, 'ipMasqBackend'), ['', 'iptables', 'nftables'])
}

export function refuseDuplicateDetection(root: Field): void {
  const field = member(root, 'enabledad')
  if (flag(field))
    throw unsupported(
      field,
      'leave it out: Weft sets addresses without duplicate address detection, since no other host assigns them'
    )
}

/** Firewall: Weft puts no interface into a zone; with firewalld its accepts are in the chains that drop. */
export function refuseFirewalld(root: Field): void {
  const [backend, zone] = [member(root, 'backend'), member(root, 'firewalldZone')]
  const cure = 'leave it out: Weft accepts the packets in nftables, also where firewalld drops them, and knows no zones'
  const named = oneOf(backend, ['', 'iptables', 'firewalld'])
  if (named === 'firewalld') throw unsupported(backend, cure)
  // The reference reads the zone only for firewalld.
  if (text(zone) && named !== 'iptables') throw unsupported(zone, cure)
}
