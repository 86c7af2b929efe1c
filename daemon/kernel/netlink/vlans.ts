// The VLANs of bridge ports in rtnetlink messages of family AF_BRIDGE: `bridge vlan` (<linux/if_bridge.h>).
import { otherRanges, type PortVlans, type VlanRange, type VlanRanges, vlanRanges } from '../../state/vlans.ts'
import type { NameOf } from './decode.ts'
import type { Resolve } from './encode.ts'
import { Attributes, MalformedMessage, type Message, MessageWriter, NLM_F } from './message.ts'
import { AF_BRIDGE, BRIDGE_FLAGS_SELF, IFLA, IFLA_BRIDGE, RTM, VLAN_INFO, WITH_VLANS } from './uapi.ts'

/** Octets of struct ifinfomsg. */
const FIXED = 16
/** struct bridge_vlan_info: flags and ID, two octets each. */
const INFO = 4

export const getVlans = (): Buffer =>
  new MessageWriter(RTM.getLink, NLM_F.request)
    .fixed([4, AF_BRIDGE], [4, 0], [4, 0], [4, 0])
    .u32(IFLA.extMask, WITH_VLANS)
    .done()

/** Without any where the message has none; `undefined` when the device no longer exists. */
export function decodeVlans({ body }: Message, nameOf: NameOf): PortVlans | undefined {
  if (body.length < FIXED) throw new MalformedMessage(`a bridge port in ${body.length} octets`)
  const device = nameOf(body.readInt32LE(4))
  if (device === undefined) return undefined
  const spec = new Attributes(body, FIXED).nested(IFLA.afSpec)
  const sets = { untagged: [] as number[], tagged: [] as number[] }
  let [pvid, first]: (number | undefined)[] = []
  for (const info of spec?.all(IFLA_BRIDGE.vlanInfo) ?? []) {
    if (info.length < INFO) throw new MalformedMessage(`a VLAN in ${info.length} octets`)
    const [flags, id] = [info.readUInt16LE(0), info.readUInt16LE(2)]
    if ((flags & VLAN_INFO.pvid) !== 0) pvid = id
    if ((flags & VLAN_INFO.rangeBegin) !== 0) {
      first = id
      continue
    }
    const ids = (flags & VLAN_INFO.untagged) === 0 ? sets.tagged : sets.untagged
    for (let each = first ?? id; each <= id; each++) ids.push(each)
    first = undefined
  }
  return {
    ...{ kind: 'vlans', device, untagged: vlanRanges(sets.untagged), tagged: vlanRanges(sets.tagged) },
    ...(pvid === undefined ? {} : { pvid })
  }
}

/**
 * Sets a port's VLANs, or those of a bridge itself. All others are deleted first where it is to have no others: the
 * kernel takes the deletion of VLANs that the port does not have.
 */
export function putVlans(vlans: PortVlans, resolve: Resolve): readonly Buffer[] {
  const { device, pvid, untagged, tagged, isExact } = vlans
  const index = resolve.index(device)
  const isWithPvid = ({ first, last }: VlanRange): boolean => pvid !== undefined && first <= pvid && pvid <= last
  // The kernel refuses the flag in a range.
  const single: VlanRanges = pvid === undefined ? [] : [{ first: pvid, last: pvid }]
  const rest = (ranges: VlanRanges): VlanRanges =>
    ranges.some(isWithPvid) ? otherRanges(otherRanges(ranges), single) : ranges
  const pvidFlags = VLAN_INFO.pvid | (untagged.some(isWithPvid) ? VLAN_INFO.untagged : 0)
  const others = isExact ? otherRanges(untagged, tagged) : []
  return [
    ...(others.length === 0 ? [] : [vlanMessage(RTM.deleteLink, index, vlans, [[others, 0]])]),
    vlanMessage(RTM.setLink, index, vlans, [
      [rest(untagged), VLAN_INFO.untagged],
      [rest(tagged), 0],
      [single, pvidFlags]
    ])
  ]
}

function vlanMessage(
  type: number,
  index: number,
  { isOfBridge }: PortVlans,
  parts: readonly (readonly [ranges: VlanRanges, flags: number])[]
): Buffer {
  const info = (writer: MessageWriter, flags: number, id: number) =>
    writer.bytes(IFLA_BRIDGE.vlanInfo, [flags & 0xff, flags >> 8, id & 0xff, id >> 8])
  return new MessageWriter(type, NLM_F.request)
    .fixed([4, AF_BRIDGE], [4, index], [4, 0], [4, 0])
    .nest(IFLA.afSpec, (spec) => {
      if (isOfBridge) spec.bytes(IFLA_BRIDGE.flags, [BRIDGE_FLAGS_SELF, 0])
      for (const [ranges, flags] of parts)
        for (const { first, last } of ranges) {
          if (first === last) info(spec, flags, first)
          else {
            info(spec, flags | VLAN_INFO.rangeBegin, first)
            info(spec, flags | VLAN_INFO.rangeEnd, last)
          }
        }
    })
    .done()
}
