// Chooses the address of an interface that this node publishes: the one asked for, else the one it has published, else
// the one that will last longest.
import { type Family, type Ip, isGlobalUnicast, isLinkLocal, sameIp, width } from '../../ipam/address.ts'
import type { Address } from '../state/object.ts'
import { HOST_SCOPE } from '../state/route.ts'

export type AddressWanted = {
  /** Whether the flag that selected the interface matches this address. */
  readonly isAsked: (ip: Ip) => boolean
  /** The preferred source of the route that selected the interface. */
  readonly source?: Ip | undefined
  /** What this node has published, the first one first. */
  readonly published: readonly Ip[]
}

/**
 * The address of this family, or `undefined`. An address that the lease publishes stays while the interface has it: a
 * virtual address, or one more that the kernel lists first, must not make this node another one to its peers. Of those
 * that were published, the earliest is preferred, so that an address that was gone for a moment is returned to.
 */
export function chooseAddress(addresses: readonly Address[], family: Family, wanted: AddressWanted): Ip | undefined {
  const usable = addresses.filter(
    ({ prefix: { ip }, scope }) =>
      ip.family === family && scope !== HOST_SCOPE && (isGlobalUnicast(ip) || (family === 4 && isLinkLocal(ip)))
  )
  const ranked = usable.map((address) => ({ ip: address.prefix.ip, rank: ranksOf(address, wanted) }))
  return ranked.sort((a, b) => compareRanks(a.rank, b.rank))[0]?.ip
}

/** Whether the address is this node's own for longer: neither virtual nor about to go. */
export const isLasting = (address: Address): boolean => !isPassing(address) && !isSingle(address)

/** Deprecated, not known to be unique, or temporary: about to go, or not usable at all. */
const isPassing = ({ deprecated, secondary, prefix }: Address): boolean =>
  deprecated === true || (secondary === true && prefix.ip.family === 6)

/** Without a network of its own, as the virtual addresses of kube-vip and keepalived. */
const isSingle = ({ prefix }: Address): boolean => prefix.length === width(prefix.ip.family)

/** Smaller is better, the first difference decides; equal ones keep the kernel's order. */
function ranksOf(address: Address, { isAsked, source, published }: AddressWanted): readonly number[] {
  const { ip } = address.prefix
  const before = isPassing(address) ? -1 : published.findIndex((each) => sameIp(each, ip))
  return [
    rank(!isAsked(ip)),
    rank(!sameIp(source, ip)),
    before < 0 ? published.length : before,
    rank(isLinkLocal(ip)),
    rank(isPassing(address)),
    rank(isSingle(address)),
    rank((address.scope ?? 0) !== 0),
    rank(address.dynamic === true),
    rank(address.secondary === true)
  ]
}

const rank = (isWorse: boolean): number => (isWorse ? 1 : 0)

function compareRanks(a: readonly number[], b: readonly number[]): number {
  for (const [at, left] of a.entries()) {
    const right = b[at] ?? 0
    if (left !== right) return left - right
  }
  return 0
}
