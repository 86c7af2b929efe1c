// Whether a lease is this node's: one rule for the stores, for the choice of a subnet and for what counts as a peer.
import { type Ip, type PerFamily, perFamily, sameIp } from '../../ipam/address.ts'
import type { Lease } from './lease.ts'

/** What this node is known by. */
export type Us = {
  readonly publicIp: PerFamily<Ip>
  /** Its name, for stores that keep names. */
  readonly node?: string | undefined
  /** The lease that it holds, if any. */
  readonly lease?: Lease | undefined
  /** Whether the backend data of two leases identify two nodes. */
  readonly areOfTwoNodes?: ((a: Lease, b: Lease) => boolean) | undefined
}

/** Whether a lease publishes these addresses: the same in each family that both have, and in at least one. */
export function publishesUs(lease: Pick<Lease, 'publicIp'>, publicIp: PerFamily<Ip>): boolean {
  const both = perFamily(publicIp).filter(([family]) => lease.publicIp[family] !== undefined)
  return both.length > 0 && both.every(([family, ip]) => sameIp(ip, lease.publicIp[family]))
}

/** Whether both names are known and differ. */
export const isOfOtherName = ({ node }: Pick<Lease, 'node'>, name: string | undefined): boolean =>
  node !== undefined && name !== undefined && node !== name

/**
 * Whether a lease is ours by what it says: our addresses, no other node's name, and no backend data of another node. An
 * address alone proves nothing where we hold a lease, since two nodes may publish one.
 */
export const isOurs = (lease: Lease, us: Us): boolean =>
  !isOfOtherName(lease, us.node ?? us.lease?.node) && publishesUs(lease, us.publicIp) && !isAnothersData(lease, us)

const isAnothersData = (lease: Lease, us: Us): boolean =>
  us.lease !== undefined && us.areOfTwoNodes?.(lease, us.lease) === true

/**
 * The same for the lease under the key that we hold. Ours also with another address, which may just be changing, unless
 * the store reports the loss of it (`isLost`); a store with names decides by the name.
 */
export function isOursUnderOurKey(lease: Lease, us: Us, isLost: boolean): boolean {
  const name = us.node ?? us.lease?.node
  if (lease.node !== undefined && name !== undefined) return lease.node === name
  return isOurs(lease, us) || !(isLost || isAnothersData(lease, us))
}
