// Host ports as elements of nftables maps: names of the maps, encoding and decoding of elements, and the conntrack
// entries that a change makes stale.
import { type Family, formatIp, type Ip, isUnspecified, parseIp } from '../../ipam/address.ts'
import type { Change } from './difference.ts'
import type { KernelObject, NftElement, State } from './object.ts'
import { NFT_TABLE } from './ownership.ts'

export type PortProtocol = 'tcp' | 'udp' | 'sctp'

/** Packets to `port` of this host are translated to `to`. */
export type HostPortEntry = {
  readonly protocol: PortProtocol
  readonly port: number
  /** The address of this host; absent: all of the family of `to`. */
  readonly at?: Ip
  readonly to: { readonly ip: Ip; readonly port: number }
}

/**
 * The map for ports on all addresses, or on single ones. `only`: the suffix of the maps for packets under conditions.
 */
export const hostPortMap = (family: Family, which: 'any' | 'at', only = ''): string =>
  `host_ports_${which === 'any' ? '' : 'at_'}${family}${only}`

/** Devices of pods with host ports. */
export const HOST_PORT_DEVICES = 'host_port_devices'

/** Pods for which all packets to host ports are masqueraded. */
export const translatedPodSet = (family: Family): string => `host_port_all_${family}`

/** Longest comment that nft accepts, in bytes (libnftnl: NFTNL_UDATA_COMMENT_MAXLEN without the final zero). */
const LONGEST_COMMENT = 127

/**
 * `link`: the pod's link on the host, or another mark, by which a restarted weftd recognises the owner; `whose` is for
 * readers; `only` as in `hostPortMap`.
 */
export function hostPortElement(entry: HostPortEntry, link: string, whose: string, only?: string): NftElement {
  const { protocol, port, at, to } = entry
  const single = at !== undefined && !isUnspecified(at)
  return {
    kind: 'nft-element',
    family: 'inet',
    table: NFT_TABLE,
    set: hostPortMap(to.ip.family, single ? 'at' : 'any', only),
    key: `${single ? `${formatIp(at)} . ` : ''}${protocol} . ${port}`,
    value: `${formatIp(to.ip)} . ${to.port}`,
    comment: elementComment(link, whose)
  }
}

/**
 * The comment that names an element's owner. Quotes would end it, and non-ASCII characters would make its length
 * ambiguous.
 */
export const elementComment = (link: string, whose: string): string =>
  `${link} ${whose.replaceAll(/[^ !#-~]/g, '?')}`.slice(0, LONGEST_COMMENT)

/** The first word of the comment of one of Weft's elements. */
const markOf = (object: KernelObject): string | undefined =>
  object.kind === 'nft-element' && object.table === NFT_TABLE ? object.comment?.split(' ', 1)[0] : undefined

/** The elements of the pod behind this link of the host. */
export const elementsOf = (link: string, state: State): readonly NftElement[] =>
  [...state.values()].filter((object): object is NftElement => markOf(object) === link)

/** Elements whose marks begin with `start`, by mark. */
export function elementsByMark(start: string, state: State): ReadonlyMap<string, readonly NftElement[]> {
  const found = new Map<string, NftElement[]>()
  for (const object of state.values()) {
    const mark = markOf(object)
    if (mark?.startsWith(start) && object.kind === 'nft-element') found.set(mark, [...(found.get(mark) ?? []), object])
  }
  return found
}

/** Parses an element of the host port maps; `undefined` for any other object. */
export function hostPortOf(object: KernelObject): HostPortEntry | undefined {
  if (object.kind !== 'nft-element' || object.table !== NFT_TABLE || !/^host_ports_/.test(object.set)) return undefined
  const [port = '', protocol = '', at] = object.key.split(' . ').reverse()
  const [target = '', targetPort = ''] = (object.value ?? '').split(' . ')
  const ip = parseIp(target)
  const single = at === undefined ? undefined : parseIp(at)
  if (ip === undefined || !isProtocol(protocol)) return undefined
  return {
    protocol,
    port: Number(port),
    to: { ip, port: Number(targetPort) },
    ...(single === undefined ? {} : { at: single })
  }
}

const isProtocol = (text: string): text is PortProtocol => text === 'tcp' || text === 'udp' || text === 'sctp'

/**
 * UDP flows that conntrack would keep handling as before: translated ones (`translatedTo`), or unreplied ones (without
 * it), which passed untranslated. Both have the port as their original destination.
 */
export type StaleFlows = {
  readonly family: Family
  readonly port: number
  /** Original destination; absent: any. */
  readonly at?: Ip
  readonly translatedTo?: { readonly ip: Ip; readonly port: number }
}

/**
 * The conntrack entries to delete once this change is in the kernel: the first packet decides the translation of a
 * flow, and a UDP flow ends only when it is idle.
 */
export function staleFlows({ do: verb, object, instead }: Change): readonly StaleFlows[] {
  const entry = hostPortOf(object)
  if (entry === undefined || entry.protocol !== 'udp') return []
  const place = {
    family: entry.to.ip.family,
    port: entry.port,
    ...(entry.at === undefined ? {} : { at: entry.at })
  }
  const before = verb === 'remove' ? entry : instead && hostPortOf(instead)
  return [...(before === undefined ? [] : [{ ...place, translatedTo: before.to }]), ...(verb === 'put' ? [place] : [])]
}
