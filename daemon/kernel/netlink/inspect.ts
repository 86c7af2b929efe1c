// The messages of rtnetlink that ask for one object: a link, a neighbour, a forwarding entry, the number of a network
// namespace; and the policy rules that refuse packets.
import { type Family, formatPrefix, type Ip, ipBytes, ipFromBytes } from '../../../ipam/address.ts'
import type { LinkNow, NeighbourNow, RefusingRule } from '../../state/inspection.ts'
import { decodeLink, type NameOf } from './decode.ts'
import { Attributes, type Message, MessageWriter, NLM_F } from './message.ts'
import * as uapi from './uapi.ts'

const { FRA, IFLA, NDA, RTM } = uapi
/** <linux/net_namespace.h>; RTM_GETNSID. */
const RTM_GETNSID = 90
const NETNSA = { id: 1, fd: 3 } as const
/** NETNSA_NSID_NOT_ASSIGNED. */
const NOT_ASSIGNED = 0xffff_ffff
/** Octets of struct ifinfomsg, ndmsg, rtgenmsg (padded), fib_rule_hdr. */
const FIXED = { link: 16, neighbour: 12, namespace: 4, rule: 12 } as const

export const getLink = (name: string): Buffer =>
  new MessageWriter(RTM.getLink, NLM_F.request)
    .fixed([4, uapi.AF_UNSPEC], [4, 0], [4, 0], [4, 0])
    .text(IFLA.ifname, name)
    .u32(IFLA.extMask, uapi.SKIP_STATS)
    .done()

/** Errors: MalformedMessage. */
export function decodeLinkNow(message: Message, nameOf: NameOf): LinkNow {
  const netnsId = new Attributes(message.body, FIXED.link).u32(uapi.IFLA_LINK_NETNSID)
  return { ...decodeLink(message, nameOf), ...(netnsId !== undefined && { netnsId }) }
}

export const getNeighbour = (index: number, ip: Ip): Buffer =>
  new MessageWriter(RTM.getNeighbour, NLM_F.request)
    .fixed([4, uapi.afOf(ip.family)], [4, index], [2, 0], [1, 0], [1, 0])
    .bytes(NDA.dst, ipBytes(ip))
    .done()

/** NUD_*, <linux/neighbour.h>, as `ip neigh` prints them. */
const STATES: readonly (readonly [number, string])[] = [
  [0x80, 'permanent'],
  [0x40, 'noarp'],
  [0x20, 'failed'],
  [0x01, 'incomplete'],
  [0x02, 'reachable'],
  [0x04, 'stale'],
  [0x08, 'delay'],
  [0x10, 'probe']
]

const macText = (bytes: Buffer): string => [...bytes].map((octet) => octet.toString(16).padStart(2, '0')).join(':')

/** Errors: MalformedMessage. */
export function decodeNeighbourNow({ body }: Message): NeighbourNow {
  const state = body.readUInt16LE(8)
  const hardware = new Attributes(body, FIXED.neighbour).bytes(NDA.lladdr)
  return {
    state: STATES.find(([bit]) => (state & bit) !== 0)?.[1] ?? 'none',
    ...(hardware?.length === 6 && { mac: macText(hardware) })
  }
}

/** `bridge fdb get`: of the device's own table, as VXLAN's. */
export const getForwarding = (index: number, mac: string): Buffer =>
  new MessageWriter(RTM.getNeighbour, NLM_F.request)
    .fixed([4, uapi.AF_BRIDGE], [4, index], [2, 0], [1, uapi.NTF_SELF], [1, 0])
    .bytes(
      NDA.lladdr,
      mac.split(':').map((octet) => Number.parseInt(octet, 16))
    )
    .done()

/** The outer destination; `undefined`: the entry has none. */
export function decodeForwarding({ body }: Message): Ip | undefined {
  const destination = new Attributes(body, FIXED.neighbour).bytes(NDA.dst)
  return destination && ipFromBytes(destination)
}

/** The number that the host's namespace has for another one, of which `fd` is open. */
export const getNamespaceId = (fd: number): Buffer =>
  new MessageWriter(RTM_GETNSID, NLM_F.request).fixed([4, uapi.AF_UNSPEC]).u32(NETNSA.fd, fd).done()

export function decodeNamespaceId({ body }: Message): number | undefined {
  const id = new Attributes(body, FIXED.namespace).u32(NETNSA.id)
  return id === NOT_ASSIGNED ? undefined : id
}

export const getRules = (family: Family): Buffer =>
  new MessageWriter(RTM.getRule, NLM_F.request).fixed([4, uapi.afOf(family)], [4, 0], [4, 0]).done()

/** FR_ACT_*, <linux/fib_rules.h>. */
const ACTIONS = new Map([
  [6, 'blackhole'],
  [7, 'unreachable'],
  [8, 'prohibit']
] as const)

/** `undefined`: a rule that refuses nothing. Errors: MalformedMessage. */
export function decodeRefusingRule({ body }: Message): RefusingRule | undefined {
  const attributes = new Attributes(body, FIXED.rule)
  const action = ACTIONS.get(body.readUInt8(7) as 6 | 7 | 8)
  if (action === undefined) return undefined
  const prefix = (bytes: Buffer | undefined, length: number) => {
    const ip = bytes && ipFromBytes(bytes)
    return ip && { ip, length }
  }
  const [destination, source] = [
    prefix(attributes.bytes(FRA.dst), body.readUInt8(1)),
    prefix(attributes.bytes(FRA.src), body.readUInt8(2))
  ]
  const [priority, mark] = [attributes.u32(FRA.priority) ?? 0, attributes.u32(FRA.fwmark) ?? 0]
  const [iif, oif] = [attributes.text(FRA.iifname), attributes.text(FRA.oifname)]
  const words = [
    `${priority}: from ${source ? formatPrefix(source) : 'all'}`,
    destination && `to ${formatPrefix(destination)}`,
    mark !== 0 && `fwmark 0x${mark.toString(16)}`,
    iif && `iif ${iif}`,
    oif && `oif ${oif}`,
    action
  ]
  return {
    ...{ priority, action, text: words.filter(Boolean).join(' ') },
    ...{
      marked: mark !== 0,
      ...(source && { source }),
      ...(destination && { destination }),
      ...(iif && { iif }),
      ...(oif && { oif })
    }
  }
}
