// Chooses the next free address of range sets. Without state, and as fast in a /64 as in a /24.
import {
  compareIp,
  formatIp,
  formatPrefix,
  type Ip,
  inRange,
  network,
  offset,
  overlaps,
  type Prefix,
  rangeOf,
  sameIp,
  width
} from './address.ts'

/** A configured range; rangeSets() fills in what is absent. */
export type RangeConfig = {
  readonly subnet: Prefix
  readonly rangeStart?: Ip
  readonly rangeEnd?: Ip
  readonly gateway?: Ip
}

/** Addresses from `first` to `last`, both included, with the prefix length of `subnet` and this gateway. */
export type PoolRange = { readonly subnet: Prefix; readonly first: Ip; readonly last: Ip; readonly gateway: Ip }

/** Ranges of one family that form one pool: an attachment gets one address from each set. */
export type RangeSet = readonly PoolRange[]

/** An address of the pool with its subnet's length, and the gateway of its range. */
export type PoolAddress = { readonly prefix: Prefix; readonly gateway: Ip }

/** A range that breaks a rule; the message has the value, its position and the rule. */
export class RangeRuleError extends Error {
  override readonly name = 'RangeRuleError'
}

/**
 * Fills in and checks range sets by host-local's rules: a subnet is a network address with at least two host bits; the
 * gateway defaults to its first address, the start to the same, the end to the last that is no broadcast address (IPv4)
 * or the very last (IPv6). Errors: RangeRuleError.
 */
export function rangeSets(configs: readonly (readonly RangeConfig[])[]): readonly RangeSet[] {
  const sets = configs.map((set, at) => {
    if (set.length === 0) throw new RangeRuleError(`range set ${at} is empty: it must have at least one range`)
    return set.map(poolRange)
  })
  for (const [at, set] of sets.entries()) checkSet(set, at, sets.slice(0, at))
  return sets
}

function poolRange(config: RangeConfig): PoolRange {
  const subnet = network(config.subnet)
  const text = formatPrefix(config.subnet)
  if (!sameIp(subnet.ip, config.subnet.ip))
    throw new RangeRuleError(`subnet ${text} has host bits set: the network is ${formatPrefix(subnet)}`)
  if (width(subnet.ip.family) - subnet.length < 2)
    throw new RangeRuleError(`subnet ${text} is too small to give addresses from: it needs at least two host bits`)
  const whole = rangeOf(subnet)
  const second = step(whole.first, 1n)
  const first = config.rangeStart ?? second
  const last = config.rangeEnd ?? (subnet.ip.family === 4 ? step(whole.last, -1n) : whole.last)
  for (const [name, ip] of [
    ['rangeStart', first],
    ['rangeEnd', last]
  ] as const) {
    if (!inRange(whole, ip)) throw new RangeRuleError(`${name} ${formatIp(ip)} is not in subnet ${text}`)
  }
  if (compareIp(first, last) > 0)
    throw new RangeRuleError(`rangeStart ${formatIp(first)} comes after rangeEnd ${formatIp(last)} in subnet ${text}`)
  const gateway = config.gateway ?? second
  if (gateway.family !== subnet.ip.family)
    throw new RangeRuleError(`gateway ${formatIp(gateway)} is of another family than subnet ${text}`)
  return { subnet, first, last, gateway }
}

/** One step inside a subnet that has room for it. */
const step = (ip: Ip, by: bigint): Ip => offset(ip, by) as Ip

function checkSet(set: RangeSet, at: number, earlier: readonly RangeSet[]): void {
  for (const [place, range] of set.entries()) {
    const family = set[0]?.subnet.ip.family
    if (range.subnet.ip.family !== family)
      throw new RangeRuleError(`range set ${at} has mixed address families: ${describe(set)}`)
    for (const other of set.slice(0, place)) {
      if (rangesOverlap(range, other))
        throw new RangeRuleError(
          `subnets ${formatPrefix(other.subnet)} and ${formatPrefix(range.subnet)} overlap in range set ${at}`
        )
    }
    for (const [before, others] of earlier.entries()) {
      const other = others.find((each) => rangesOverlap(range, each))
      if (other !== undefined)
        throw new RangeRuleError(
          `range set ${before} overlaps with ${at}: ${describe([other])} and ${describe([range])}`
        )
    }
  }
}

/** Two ranges may share a subnet as long as no address is in both. */
const rangesOverlap = (a: PoolRange, b: PoolRange): boolean =>
  overlaps(a.subnet, b.subnet) && compareIp(a.first, b.last) <= 0 && compareIp(b.first, a.last) <= 0

/** `10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.9`: the set as messages name it. */
export const describe = (set: RangeSet): string =>
  set.map(({ first, last }) => `${formatIp(first)}-${formatIp(last)}`).join(',')

/** How many addresses the set can give, without gateways, network and broadcast addresses. */
export const capacity = (set: RangeSet): bigint =>
  set.reduce(
    (sum, range) =>
      sum +
      range.last.value -
      range.first.value +
      1n -
      BigInt(reservedAddresses(range).filter((ip) => inRange(range, ip)).length),
    0n
  )

/** Gateway, network address and, for IPv4, broadcast address; each once. */
function reservedAddresses(range: PoolRange): readonly Ip[] {
  const { first, last } = rangeOf(range.subnet)
  const ends = range.subnet.ip.family === 4 ? [first, last] : [first]
  return ends.some((end) => sameIp(end, range.gateway)) ? ends : [...ends, range.gateway]
}

const isAssignable = (range: PoolRange, ip: Ip): boolean =>
  !reservedAddresses(range).some((reserved) => sameIp(reserved, ip))

const addressIn = (range: PoolRange, ip: Ip): PoolAddress => ({
  prefix: { ip, length: range.subnet.length },
  gateway: range.gateway
})

/**
 * The next free address: searched upwards from `last` (the address given most recently; outside the set the search
 * starts at the beginning), from range to range and round, so that a freed address rests until all others have been
 * given. `undefined`: every address is taken. Calls `isTaken` once per address tried, so no more often than addresses
 * are taken.
 */
export function nextFree(set: RangeSet, last: Ip | undefined, isTaken: (ip: Ip) => boolean): PoolAddress | undefined {
  for (const [range, from, to] of circle(set, last)) {
    for (let ip = from; compareIp(ip, to) <= 0; ip = step(ip, 1n)) {
      if (isAssignable(range, ip) && !isTaken(ip)) return addressIn(range, ip)
      if (sameIp(ip, to)) break
    }
  }
  return undefined
}

/**
 * The set as stretches in search order: the rest of the range of `last`, the other ranges, and the start of its range.
 */
function* circle(set: RangeSet, last: Ip | undefined): Generator<readonly [PoolRange, Ip, Ip]> {
  const at = last === undefined ? -1 : set.findIndex((range) => inRange(range, last))
  const here = set[at]
  if (here === undefined || last === undefined) {
    for (const range of set) yield [range, range.first, range.last]
    return
  }
  if (!sameIp(last, here.last)) yield [here, step(last, 1n), here.last]
  for (const range of [...set.slice(at + 1), ...set.slice(0, at)]) yield [range, range.first, range.last]
  yield [here, here.first, last]
}

/** A set's answer to a request for one of its addresses. */
export type Requested =
  | { readonly kind: 'address'; readonly address: PoolAddress }
  | { readonly kind: 'never'; readonly why: string }

/** `undefined`: the address is not in this set. */
export function requestedFrom(set: RangeSet, ip: Ip): Requested | undefined {
  const range = set.find((each) => inRange(each, ip))
  if (range === undefined) return undefined
  if (sameIp(ip, range.gateway)) return { kind: 'never', why: `requested ip ${formatIp(ip)} is subnet's gateway` }
  if (!isAssignable(range, ip))
    return {
      kind: 'never',
      why: `requested ip ${formatIp(ip)} is the network or broadcast address of ${formatPrefix(range.subnet)}`
    }
  return { kind: 'address', address: addressIn(range, ip) }
}

/**
 * Assigns requested addresses to sets, at most one to each, in order. `unserved` are in no set, or in one that has
 * another request.
 */
export function assign(
  sets: readonly RangeSet[],
  requested: readonly Ip[]
): { readonly bySet: readonly (Ip | undefined)[]; readonly unserved: readonly Ip[] } {
  const left = [...requested]
  const bySet = sets.map((set) => {
    const at = left.findIndex((ip) => set.some((range) => inRange(range, ip)))
    return at < 0 ? undefined : left.splice(at, 1)[0]
  })
  return { bySet, unserved: left }
}
