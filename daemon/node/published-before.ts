// What this node published before, as the store has it: for a weftd that remembers no lease, as after a reboot or on a
// node that flanneld served.
import { type Ip, type PerFamily, type Prefix, perFamily, sameIp } from '../../ipam/address.ts'
import type { Registry } from '../backend/registry.ts'
import { isPrevious } from '../lease/acquire.ts'
import type { Lease } from '../lease/lease.ts'
import type { Address, Link, State } from '../state/object.ts'
import { isLasting } from './choose-address.ts'

export type Evidence = {
  readonly observed: State
  /** The subnets of the previous subnet.env. */
  readonly previous: PerFamily<Prefix>
  readonly backends: Pick<Registry, 'recognises' | 'namesOurDevice'>
}

/** This host's links that a backend recognises. */
export const recognisedLinks = (observed: State, recognises: Registry['recognises']): readonly Link[] =>
  [...observed.values()].filter((object): object is Link => object.kind === 'link' && recognises(object) !== undefined)

/** What tells whether a lease is of this host, whatever address it publishes. */
export type Proof = Pick<Evidence, 'previous'> & { readonly namesOurDevice: (lease: Lease) => boolean }

/** The store found it by our name, or subnet.env or a device of this host names it. */
const isProven = (lease: Lease, { previous, namesOurDevice }: Proof): boolean =>
  lease.node !== undefined || isPrevious(lease, previous) || namesOurDevice(lease)

/**
 * The backend data of an earlier lease, if it is proven to be of this host. What has only our address may be the lease
 * of another node that is alive (one NAT address for all, a clone): with data of our own, that node sees its loss.
 */
export const dataOfOurs = (lease: Lease | undefined, proof: Proof): Lease['backendData'] =>
  lease !== undefined && isProven(lease, proof) ? lease.backendData : {}

/**
 * The public addresses of leases that are ours: the store found them by our name, or subnet.env or a device of this
 * host names them. Without such a proof that of the only lease with an address of this host, unless the address may
 * pass to another node, as virtual ones do.
 */
export function publishedBefore(
  leases: readonly Lease[],
  { observed, previous, backends }: Evidence
): readonly PerFamily<Ip>[] {
  const links = recognisedLinks(observed, backends.recognises)
  const namesOurDevice = (lease: Lease) => backends.namesOurDevice(lease, links)
  const proven = leases.filter((lease) => isProven(lease, { previous, namesOurDevice }))
  if (proven.length > 0) return proven.map(({ publicIp }) => publicIp)
  const addresses = [...observed.values()].filter((object): object is Address => object.kind === 'address')
  const local = leases.flatMap(({ publicIp }) => {
    const found = addresses.filter(({ prefix }) => perFamily(publicIp).some(([, ip]) => sameIp(ip, prefix.ip)))
    return found.length === 0 ? [] : [{ publicIp, isKept: found.every((each) => isLasting(each) && !each.secondary) }]
  })
  const [only] = local
  return local.length === 1 && only?.isKept ? [only.publicIp] : []
}
