// The VLANs of an attachment's bridge port, the device that is the gateway of a VLAN, and their words in a port's alias.
import type { BridgeVlans, Veth } from '../../plugins/attachment.ts'
import type { KernelObject } from '../state/object.ts'
import { parseRanges, rangesText } from '../state/vlans.ts'

type Bridged = Pick<Veth, 'bridge' | 'vlans'>

/** The host's device with the gateways' addresses: the bridge, or the device of the pod's VLAN on it. */
export const gatewayDevice = ({ bridge, vlans }: Bridged): string =>
  vlans?.access === undefined ? bridge : `${bridge}.${vlans.access}`

/**
 * That device, which the reference makes as a veth pair of its own. Without the VLAN on the bridge itself no packet of it
 * would reach the host.
 */
export function gatewayVlan(config: Bridged): readonly KernelObject[] {
  const { bridge, vlans: { access: id } = {} } = config
  if (id === undefined) return []
  return [
    { kind: 'link', name: gatewayDevice(config), form: { type: 'vlan', id, parent: bridge }, up: true },
    { kind: 'vlans', device: bridge, isOfBridge: true, untagged: [], tagged: [{ first: id, last: id }] }
  ]
}

/** The VLANs of a port as the reference sets them: one without a tag, or several with their tags. */
export function portVlans(port: string, { access, trunk, keepsDefault }: BridgeVlans): readonly KernelObject[] {
  if (access === undefined && trunk.length === 0) return []
  return [
    {
      ...{ kind: 'vlans', device: port, tagged: trunk },
      ...(access === undefined ? { untagged: [] } : { pvid: access, untagged: [{ first: access, last: access }] }),
      ...(keepsDefault ? {} : { isExact: true })
    }
  ]
}

/** `v100`, or `t10-20,30`, with `!` where the default VLAN is removed. */
export const vlansWord = ({ access, trunk, keepsDefault }: BridgeVlans): string =>
  `${access === undefined ? `t${rangesText(trunk)}` : `v${access}`}${keepsDefault ? '' : '!'}`

/** The reverse of vlansWord(); `undefined` for any other word. */
export function parseVlansWord(word: string): BridgeVlans | undefined {
  const [, kind, ids = '', mark] = /^([vt])([\d,-]*)(!?)$/.exec(word) ?? []
  const keepsDefault = mark === ''
  const ranges = parseRanges(ids)
  if (kind === undefined || ranges === undefined) return undefined
  if (kind === 't') return { trunk: ranges, keepsDefault }
  const [only] = ranges
  return only === undefined || ranges.length > 1 || only.first !== only.last
    ? undefined
    : { access: only.first, trunk: [], keepsDefault }
}
