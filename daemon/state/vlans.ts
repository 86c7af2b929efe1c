// VLANs of bridge ports: the kernel object, sets of VLAN IDs as ranges, and their comparison.

/** VLAN IDs from `first` to `last`, both included; IEEE 802.1Q allows 1 to 4094. */
export type VlanRange = { readonly first: number; readonly last: number }
/** In ascending order; no two overlap or adjoin. */
export type VlanRanges = readonly VlanRange[]

/**
 * The VLANs of a port of a bridge, or of the bridge's own device, as `bridge vlan` shows them. They go with the device,
 * and with its leaving the bridge.
 */
export type PortVlans = {
  readonly because?: string
  readonly kind: 'vlans'
  readonly device: string
  /** The VLAN of untagged packets that come in (PVID); they are dropped where it has none. */
  readonly pvid?: number
  /** VLANs whose packets leave without a tag. */
  readonly untagged: VlanRanges
  readonly tagged: VlanRanges
  /** `device` is the bridge itself, which has VLANs of its own (`bridge vlan … self`). Only in desired ones. */
  readonly isOfBridge?: true
  /** The port has no other VLANs; without it others may be there. Only in desired ones. */
  readonly isExact?: true
}

/** A VLAN device on another device (IEEE 802.1Q). */
export type VlanForm = {
  readonly type: 'vlan'
  readonly id: number
  /** Name of the device that the tagged packets leave by. */
  readonly parent: string
}

export const LAST_VLAN = 4094

export function vlanRanges(ids: Iterable<number>): VlanRanges {
  const ranges: { first: number; last: number }[] = []
  for (const id of [...new Set(ids)].sort((a, b) => a - b)) {
    const before = ranges.at(-1)
    if (before !== undefined && before.last + 1 === id) before.last = id
    else ranges.push({ first: id, last: id })
  }
  return ranges
}

const idsOf = (...several: readonly VlanRanges[]): ReadonlySet<number> =>
  new Set(
    several.flat().flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, offset) => first + offset))
  )

export const joinRanges = (...several: readonly VlanRanges[]): VlanRanges => vlanRanges(idsOf(...several))

/** All VLAN IDs that are in none of these. */
export function otherRanges(...several: readonly VlanRanges[]): VlanRanges {
  const taken = idsOf(...several)
  return vlanRanges(Array.from({ length: LAST_VLAN }, (_, at) => at + 1).filter((id) => !taken.has(id)))
}

/** `10-20,30`, as bridge(8) takes it. */
export const rangesText = (ranges: VlanRanges): string =>
  ranges.map(({ first, last }) => (first === last ? String(first) : `${first}-${last}`)).join(',')

/** The reverse of rangesText(); `undefined` for any other text. */
export function parseRanges(text: string): VlanRanges | undefined {
  if (!/^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$/.test(text)) return undefined
  const ranges = text.split(',').map((each) => {
    const [first = 0, last = first] = each.split('-').map(Number)
    return { first, last }
  })
  const isValid = ranges.every(({ first, last }) => 1 <= first && first <= last && last <= LAST_VLAN)
  return isValid ? joinRanges(ranges) : undefined
}

/** Names of the fields in which a port has other VLANs than it is to have. */
export function differingVlans(wanted: PortVlans, observed: PortVlans): readonly string[] {
  const isExact = wanted.isExact === true
  const isOther = (field: 'untagged' | 'tagged'): boolean => {
    const [want, have] = [idsOf(wanted[field]), idsOf(observed[field])]
    return [...want].some((id) => !have.has(id)) || (isExact && want.size !== have.size)
  }
  const isOtherPvid = (isExact || wanted.pvid !== undefined) && wanted.pvid !== observed.pvid
  return [...(isOtherPvid ? ['pvid'] : []), ...(['untagged', 'tagged'] as const).filter(isOther)]
}

/** What both want of one device. Of two PVIDs the first's counts. */
export function mergeVlans(first: PortVlans, second: PortVlans): PortVlans {
  const pvid = first.pvid ?? second.pvid
  return {
    ...first,
    ...(pvid === undefined ? {} : { pvid }),
    untagged: joinRanges(first.untagged, second.untagged),
    tagged: joinRanges(first.tagged, second.tagged)
  }
}

/** A port to which no one gave VLANs: the bridge's default, 1, without a tag. */
export const isDefaultVlan = ({ pvid, untagged, tagged }: PortVlans): boolean =>
  tagged.length === 0 && (untagged.length === 0 || (pvid === 1 && rangesText(untagged) === '1'))
