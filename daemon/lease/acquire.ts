// Chooses this node's subnet from the configuration, all leases and what was ours before, with the reason for the log.
import {
  contains,
  FAMILIES,
  type Family,
  formatIp,
  formatPrefix,
  hostPrefix,
  network,
  overlaps,
  type PerFamily,
  type Prefix,
  perFamily,
  rangeOf,
  samePrefix,
  width
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { NetConf, NetworkRange } from '../config/net-conf.ts'
import { CONDITIONS } from '../health/conditions.ts'
import { type Lease, leaseKey } from './lease.ts'
import { isOurs, publishesUs } from './own-lease.ts'
import type { LeaseRequest } from './store.ts'

export type Choice =
  /** The lease is already ours and fits. `unfit`: leases of ours that no longer fit and must be deleted. */
  | { readonly kind: 'keep'; readonly lease: Lease; readonly because: string; readonly unfit: readonly Lease[] }
  /** `instead`: a lease of ours whose backend data may be taken over, since the peers know them. */
  | {
      readonly kind: 'take'
      readonly subnet: PerFamily<Prefix>
      readonly because: string
      readonly unfit: readonly Lease[]
      readonly instead?: Lease
    }
  | { readonly kind: 'exhausted'; readonly detail: string }

export type Granted = Exclude<Choice, { readonly kind: 'exhausted' }>

export type SubnetRequest = Pick<
  LeaseRequest,
  'network' | 'publicIp' | 'previous' | 'namesOurDevice' | 'isAnothers' | 'occupied'
> & {
  /** Its name, which some stores keep with the lease. */
  readonly node?: string
  readonly leases: readonly Lease[]
  /**
   * The subnets that this running daemon holds, if any: ours whatever address they publish, since our address may just
   * have changed.
   */
  readonly held?: PerFamily<Prefix>
  /** A number from 0 to below 1. */
  readonly random: () => number
}

/** flannel picks among this many free subnets, so that nodes that start together rarely pick the same one. */
const CANDIDATES = 100

/**
 * In flannel's order: (1) our own lease (`oursOf`), (2) the subnets of the previous subnet.env, if free, (3) one of the
 * first 100 free subnets. A family without a result from 1 or 2 gets 3; the other family keeps its subnet.
 */
export function chooseSubnet(request: SubnetRequest): Choice {
  const { network: conf, leases, previous, held } = request
  const heldKey = held === undefined ? undefined : leaseKey({ subnet: held })
  const mine = oursOf(request, heldKey)
  const unfit = mine.filter((lease) => !fits(lease.subnet, conf))
  const kept = preferred(
    mine.filter((lease) => fits(lease.subnet, conf)),
    held,
    previous
  )
  if (kept !== undefined) {
    return { kind: 'keep', lease: kept, because: whyOurs(kept, heldKey, request), unfit }
  }

  const others = leases.filter((lease) => !unfit.includes(lease))
  const subnet: { [F in Family]?: Prefix } = {}
  const reasons: string[] = []
  for (const family of FAMILIES) {
    const range = conf.families[family]
    if (range === undefined) continue
    const taken = [...others.flatMap((lease) => takenBy(lease, family)), ...(request.occupied ?? [])].filter(
      ({ ip }) => ip.family === family
    )
    const before = [previous[family], ...unfit.map((lease) => lease.subnet[family])].find(
      (prefix) => prefix !== undefined && fitsRange(prefix, range) && !taken.some((other) => overlaps(other, prefix))
    )
    const free = before === undefined ? freeSubnets(range, taken, CANDIDATES) : []
    const chosen = before === undefined ? free[Math.floor(request.random() * free.length)] : network(before)
    if (chosen === undefined) {
      return { kind: 'exhausted', detail: exhausted(range, others.length, occupiedIn(range, request.occupied ?? [])) }
    }
    subnet[family] = chosen
    reasons.push(
      before === undefined
        ? `${formatPrefix(chosen)} is one of ${free.length === CANDIDATES ? 'the first ' : ''}${free.length} free`
        : `${formatPrefix(chosen)} was ours before and is free`
    )
  }
  const gone = unfit.map((lease) => `; ${leaseKey(lease)} was ours and no longer fits the configuration`)
  return {
    kind: 'take',
    subnet,
    because: `${reasons.join(', ')}${gone.join('')}`,
    unfit,
    ...(unfit[0] && { instead: unfit[0] })
  }
}

/**
 * `chooseSubnet` that throws where none is free, or not the `only` acceptable one; `place` says where the leases are.
 * Errors: SUBNETS_EXHAUSTED, LEASE_LOST.
 */
export function grantedSubnet(request: SubnetRequest & Pick<LeaseRequest, 'only'>, place: string): Granted {
  const { only, leases } = request
  const choice = chooseSubnet(only === undefined ? request : { ...request, previous: only })
  if (choice.kind === 'exhausted') {
    const cure = 'delete leases of nodes that no longer exist, or widen Network or SubnetMin to SubnetMax'
    throw new WeftError('SUBNETS_EXHAUSTED', `no subnet is left in ${place}: ${choice.detail}`, cure)
  }
  const got = leaseKey(choice.kind === 'keep' ? choice.lease : choice)
  if (only === undefined || got === leaseKey({ subnet: only })) return choice
  const holder = leases.find((lease) => sharesAddresses(lease.subnet, only))
  const whose = holder && `${leaseKey(holder)} is leased to ${perFamily(holder.publicIp).map(([, ip]) => formatIp(ip))}`
  throw new WeftError(
    'LEASE_LOST',
    `${leaseKey({ subnet: only })} was ours, but in ${place} ${whose ?? `this node's lease is ${got}`}`,
    CONDITIONS.LEASE_LOST.cure
  )
}

const sharesAddresses = (a: PerFamily<Prefix>, b: PerFamily<Prefix>): boolean =>
  perFamily(a).some(([family, prefix]) => b[family] !== undefined && overlaps(prefix, b[family]))

/**
 * Whether a lease has the families of the configuration, and in each a subnet of the right length between SubnetMin and
 * SubnetMax.
 */
export function fits(subnet: PerFamily<Prefix>, conf: NetConf): boolean {
  return FAMILIES.every((family) => {
    const [range, prefix] = [conf.families[family], subnet[family]]
    return range === undefined || prefix === undefined ? range === prefix : fitsRange(prefix, range)
  })
}

/**
 * Whether a lease has the families of the configuration, and in each a subnet of Network. No other limit applies to
 * podCIDRs: the first of a cluster is below SubnetMin.
 */
export function liesWithin(subnet: PerFamily<Prefix>, conf: NetConf): boolean {
  return FAMILIES.every((family) => {
    const [range, prefix] = [conf.families[family], subnet[family]]
    return range === undefined || prefix === undefined ? range === prefix : contains(range.network, prefix)
  })
}

function fitsRange(prefix: Prefix, range: NetworkRange): boolean {
  const { ip, length } = network(prefix)
  return (
    ip.family === range.subnetMin.family &&
    length === range.subnetLength &&
    range.subnetMin.value <= ip.value &&
    ip.value <= range.subnetMax.value
  )
}

/**
 * The leases that are ours. The public address alone does not prove it, since two nodes may publish one (a virtual
 * address, a clone): where we hold a lease, or subnet.env or a device of this host names one, that one is ours and the
 * others are not. Without any such proof, as on a node that flanneld served until it was rebooted, the address counts,
 * unless the store says that the lease is a node's of another name. What another node's backend data identify is never
 * ours: a node that has lost its subnet and is started again must not take the new holder's lease and identity.
 */
function oursOf(request: SubnetRequest, heldKey: string | undefined): readonly Lease[] {
  const { leases, publicIp, previous, node, namesOurDevice } = request
  const possible = leases.filter((lease) => request.isAnothers?.(lease) !== true)
  const proven = possible.filter(
    (lease) =>
      leaseKey(lease) === heldKey ||
      wasOurs(lease, request) ||
      (publishesUs(lease, publicIp) && (isPrevious(lease, previous) || namesOurDevice(lease)))
  )
  if (proven.length > 0) return proven
  return possible.filter((lease) => isOurs(lease, { publicIp, node }))
}

/** A subnet that contains a node's public address would cut that node off. */
const takenBy = ({ subnet, publicIp }: Lease, family: Family): readonly Prefix[] => [
  ...(subnet[family] === undefined ? [] : [subnet[family]]),
  ...(publicIp[family] === undefined ? [] : [hostPrefix(publicIp[family])])
]

/** Whether the subnets of the previous subnet.env are those of the lease. */
export const isPrevious = (lease: Lease, previous: PerFamily<Prefix>): boolean =>
  perFamily(lease.subnet).every(([family, prefix]) => matches(prefix, previous[family]))

/**
 * Whether it is this host's lease from before its public address changed, while no weftd ran: subnet.env has its
 * subnets, and its backend data name a device of this host. One of the two is not enough: a subnet may be another
 * node's by now, and cloned machines derive equal backend data.
 */
const wasOurs = (lease: Lease, { previous, namesOurDevice }: SubnetRequest): boolean =>
  isPrevious(lease, previous) && namesOurDevice(lease)

function whyOurs(lease: Lease, heldKey: string | undefined, { publicIp, previous }: SubnetRequest): string {
  if (heldKey === leaseKey(lease)) return 'held by this daemon'
  if (publishesUs(lease, publicIp) && isPrevious(lease, previous)) return 'its address and its subnet are ours'
  return publishesUs(lease, publicIp)
    ? 'its public address is ours'
    : 'its subnet is our previous one, and it names our device'
}

/** Of several leases that are ours: the one we hold, else the one in the previous subnet.env, else the first. */
function preferred(mine: readonly Lease[], ...wanted: readonly (PerFamily<Prefix> | undefined)[]): Lease | undefined {
  for (const subnet of wanted) {
    const found = subnet && mine.find((lease) => isPrevious(lease, subnet))
    if (found !== undefined) return found
  }
  return mine[0]
}

const matches = (prefix: Prefix, other: Prefix | undefined): boolean => other !== undefined && samePrefix(prefix, other)

/**
 * The first free subnets in SubnetMin…SubnetMax, at most `limit`. A subnet is taken when a lease of any length overlaps
 * it. The cost is that of sorting the leases: the space between two of them is skipped, however large.
 */
export function freeSubnets(range: NetworkRange, taken: readonly Prefix[], limit: number): readonly Prefix[] {
  const { family } = range.subnetMin
  const size = 1n << BigInt(width(family) - range.subnetLength)
  const blocks = taken
    .map(rangeOf)
    .sort((a, b) => (a.first.value < b.first.value ? -1 : a.first.value > b.first.value ? 1 : 0))
  const free: Prefix[] = []
  let at = range.subnetMin.value
  let next = 0
  while (at <= range.subnetMax.value && free.length < limit) {
    const block = blocks[next]
    if (block === undefined || at + size <= block.first.value) {
      free.push({ ip: { family, value: at }, length: range.subnetLength })
      at += size
      continue
    }
    // The start of the first subnet that begins after this block.
    if (block.last.value >= at) at = (block.last.value / size + 1n) * size
    next++
  }
  return free
}

const occupiedIn = ({ network: whole }: NetworkRange, occupied: readonly Prefix[]): readonly Prefix[] =>
  occupied.filter((prefix) => overlaps(prefix, whole))

function exhausted(range: NetworkRange, leases: number, occupied: readonly Prefix[]): string {
  const [first, last] = [range.subnetMin, range.subnetMax].map((ip) => formatPrefix({ ip, length: range.subnetLength }))
  const here = occupied.length === 0 ? '' : `, and this host has ${occupied.map(formatPrefix).join(', ')} there`
  return `no /${range.subnetLength} from ${first} to ${last} is free (${leases} leases${here})`
}
