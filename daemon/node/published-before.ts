// What this node published before, as the store has it: for a weftd that remembers no lease, as after a reboot or on a
// node that flanneld served.
import { type Ip, type PerFamily, type Prefix, perFamily, sameIp } from '../../ipam/address.ts'
import type { Registry } from '../backend/registry.ts'
import { isPrevious } from '../lease/acquire.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { publishesUs } from '../lease/own-lease.ts'
import { areOfTwoNodes } from '../peers/conflicts.ts'
import { addressesIn, type Link, type State } from '../state/object.ts'
import { isLasting } from './choose-address.ts'

export type Evidence = {
  readonly observed: State
  /** The subnets of the previous subnet.env. */
  readonly previous: PerFamily<Prefix>
  readonly backends: Pick<Registry, 'recognises' | 'namesOurDevice' | 'namesAnotherDevice'>
}

/** This host's links that a backend recognises. */
export const recognisedLinks = (observed: State, recognises: Registry['recognises']): readonly Link[] =>
  [...observed.values()].filter((object): object is Link => object.kind === 'link' && recognises(object) !== undefined)

/** What tells whether a lease is of this host, whatever address it publishes. */
export type Proof = Pick<Evidence, 'previous'> & {
  readonly namesOurDevice: (lease: Lease) => boolean
  readonly isAnothers: (lease: Lease) => boolean
}

/** The store found it by our name, or subnet.env or a device of this host names it. */
const isProven = (lease: Lease, { previous, namesOurDevice, isAnothers }: Proof): boolean =>
  lease.node !== undefined || (!isAnothers(lease) && (isPrevious(lease, previous) || namesOurDevice(lease)))

export type Identity = Pick<Proof, 'previous'> & {
  readonly backends: Pick<Registry, 'claims' | 'namesOurDevice' | 'namesAnotherDevice'>
  /** This host's links that a backend recognises. */
  readonly links: readonly Link[]
  readonly publicIp: PerFamily<Ip>
  /** What this node would publish without an earlier lease. */
  readonly fresh: Pick<Lease, 'backendType' | 'backendData'>
  /** The lease that this daemon has. */
  readonly present: Lease | undefined
  /** The lease that an earlier weftd of this host had. */
  readonly remembered: Lease | undefined
}

/**
 * Whether a lease is certainly another node's, although it has our address or our earlier subnet: its backend data are
 * neither what our lease had nor what our devices have nor what we would publish; or, at the start, it publishes an
 * address that is neither ours now nor the one that our lease had, so its holder has changed it. Where the store knows
 * names, these decide. Without an earlier lease and without a device nothing is certain.
 */
const anothers =
  ({ backends, links, publicIp, fresh, present, remembered }: Identity) =>
  (lease: Lease): boolean => {
    if (lease.node !== undefined) return false
    const last = present ?? remembered
    const isLast = last !== undefined && leaseKey(last) === leaseKey(lease)
    if (present === undefined && isLast && !publishesUs(lease, publicIp) && !publishesUs(lease, last.publicIp))
      return true
    const known = [...(last === undefined ? [] : [last]), { ...lease, publicIp, ...fresh }]
    const identify = (one: Lease) => backends.claims(one).length > 0
    const isKnown = known.some((one) => identify(one) && !areOfTwoNodes(one, lease, backends.claims))
    if (isKnown || !identify(lease) || backends.namesOurDevice(lease, links)) return false
    return backends.namesAnotherDevice(lease, links) || (last !== undefined && identify(last))
  }

export const proofOf = (identity: Identity): Proof => ({
  previous: identity.previous,
  namesOurDevice: (lease) => identity.backends.namesOurDevice(lease, identity.links),
  isAnothers: anothers(identity)
})

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
  const isAnothers = (lease: Lease) => backends.namesAnotherDevice(lease, links)
  const proven = leases.filter((lease) => isProven(lease, { previous, namesOurDevice, isAnothers }))
  if (proven.length > 0) return proven.map(({ publicIp }) => publicIp)
  const addresses = addressesIn(observed)
  const local = leases.flatMap((lease) => {
    const { publicIp } = lease
    if (isAnothers(lease)) return []
    const found = addresses.filter(({ prefix }) => perFamily(publicIp).some(([, ip]) => sameIp(ip, prefix.ip)))
    return found.length === 0 ? [] : [{ publicIp, isKept: found.every((each) => isLasting(each) && !each.secondary) }]
  })
  const [only] = local
  return local.length === 1 && only?.isKept ? [only.publicIp] : []
}
