// The keys of the reference's bridge plugin for VLANs: vlan, vlanTrunk, preserveDefaultVlan.
import type { BridgeVlans } from '../attachment.ts'
import { entries, type Field, FieldError, flag, member, wholeNumber } from '../cni/field.ts'
import { brokenNameRule } from '../cni/interface-name.ts'
import { unsupported } from './readers.ts'

const LAST_VLAN = 4094

type VlanRange = BridgeVlans['trunk'][number]

/** `undefined`: the configuration asks for none, as also by an empty trunk. `bridge` is its name; an absent preserveDefaultVlan is true. */
export function bridgeVlans(root: Field, bridge: string, isGateway: boolean): BridgeVlans | undefined {
  const [vlan, trunk] = [member(root, 'vlan'), member(root, 'vlanTrunk')]
  const access = wholeNumber(vlan, 0, LAST_VLAN) ?? 0
  const ranges = joined(entries(trunk).flatMap(rangesIn))
  const keepsDefault = flag(member(root, 'preserveDefaultVlan')) ?? true
  if (access === 0) return ranges.length === 0 ? undefined : { trunk: ranges, keepsDefault }
  if (ranges.length > 0) throw new FieldError(trunk, 'cannot be combined with vlan: a port has one VLAN, or a trunk')
  const device = `${bridge}.${access}`
  if (isGateway && brokenNameRule(device) !== undefined)
    throw new FieldError(
      vlan,
      `the gateway's interface ${device} would have too long a name: shorten that of the bridge`
    )
  return { access, trunk: [], keepsDefault }
}

/** Ignoring these keys would leave the pod less isolated than its configuration says. */
export function refuseVlans(root: Field): void {
  const [vlan, trunk] = [member(root, 'vlan'), member(root, 'vlanTrunk')]
  const cure =
    'the weft plugin has no VLANs: use the plugin bridge with host-local, or give each VLAN a bridge of its own'
  if ((wholeNumber(vlan, 0, LAST_VLAN) ?? 0) !== 0) throw unsupported(vlan, cure)
  if (entries(trunk).length > 0) throw unsupported(trunk, cure)
}

/** An entry has a range (minID, maxID), a single `id`, or both. */
function rangesIn(entry: Field): readonly VlanRange[] {
  const id = (key: string): number | undefined => wholeNumber(member(entry, key), 1, LAST_VLAN)
  const [first, last, single] = [id('minID'), id('maxID'), id('id')]
  if ((first === undefined) !== (last === undefined)) throw new FieldError(entry, 'must have both minID and maxID')
  if (first !== undefined && last !== undefined && last < first)
    throw new FieldError(entry, 'must have a maxID that is not below minID')
  return [
    ...(first === undefined || last === undefined ? [] : [{ first, last }]),
    ...(single === undefined ? [] : [{ first: single, last: single }])
  ]
}

/** In ascending order, without overlaps. */
function joined(ranges: readonly VlanRange[]): readonly VlanRange[] {
  const out: VlanRange[] = []
  for (const range of [...ranges].sort((a, b) => a.first - b.first)) {
    const before = out.at(-1)
    if (before === undefined || before.last + 1 < range.first) out.push(range)
    else out[out.length - 1] = { first: before.first, last: Math.max(before.last, range.last) }
  }
  return out
}
