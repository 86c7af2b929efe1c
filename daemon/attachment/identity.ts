// Names and hardware addresses of a pod's link, all derived from what every DEL knows, and the alias by which the kernel itself tells whose a link is.
import { formatIp, formatPrefix, type Ip, ipBytes, type Prefix, parsePrefix } from '../../ipam/address.ts'
import { digest } from '../state/digest.ts'
import type { Mac } from '../state/object.ts'
import { ALIAS_MARK, CHAINED_MARK } from '../state/ownership.ts'

/** What identifies an attachment on this host. */
export type Identity = { readonly network: string; readonly containerId: string; readonly ifname: string }

/** One key per attachment: owner in the desired state, queue of verbs. */
export const ownerOf = (who: Identity): string => `pod ${who.network} ${who.containerId} ${who.ifname}`

/** The limits that the bandwidth plugin keeps for an attachment. */
export const limitsOwnerOf = (who: Identity): string => `limits ${ownerOf(who)}`

/** The host ports that the portmap plugin keeps for an attachment. */
export const portsOwnerOf = (who: Identity): string => markedOwnerOf(portMark(who))

/** Who wants what a plugin behind the interface's own keeps in nftables under this mark. */
export const markedOwnerOf = (mark: string): string => `marked ${mark}`

/**
 * First word of the comment of what a plugin behind the interface's own keeps in nftables: it tells the network and the attachment to those who know their
 * names, so that DEL and GC find theirs without memory, and whoever made the interface.
 */
const markOf = (who: Identity): string => `${networkMark(who.network)}${digest(ownerOf(who)).slice(0, 8)}`
/** Of portmap's. */
export const portMark = markOf
/** Of what the firewall plugin keeps: an attachment apart from others, and its packets let through. */
export const apartMark = (who: Identity): string => `${markOf(who)}-apart`
export const throughMark = (who: Identity): string => `${markOf(who)}-through`
/** How the marks of all attachments of a network begin. */
export const networkMark = (network: string): string => `${CHAINED_MARK}${digest(network).slice(0, 8)}-`

/** All that goes with an interface of ours: what plugins behind it keep leads nowhere without it. */
export const ownersOf = (who: Identity): readonly string[] => [
  ownerOf(who),
  bridgeOwnerOf(who),
  portsOwnerOf(who),
  markedOwnerOf(apartMark(who)),
  markedOwnerOf(throughMark(who)),
  limitsOwnerOf(who)
]

/** What an attachment asks of the bridge that it shares with others. */
export const bridgeOwnerOf = (who: Identity): string => `bridge of ${ownerOf(who)}`

/** The host's end: `veth` and eight hex digits, so that a DEL without namespace and without memory knows it. */
export const hostName = (who: Identity): string => `veth${digest(ownerOf(who)).slice(0, 8)}`

/** The container's end while it is in the host's namespace, where the caller moves and renames it. */
export const peerName = (who: Identity): string => `peer${digest(ownerOf(who)).slice(0, 8)}`

/** Six octets from text; `first` marks it as administered locally and unicast (IEEE 802c: second hex digit 2, 6, a or e). */
const derived = (first: '76' | '0a:58' | '0a:77', text: string): Mac => {
  const octets = digest(text).match(/../g) ?? []
  return [first, ...octets.slice(0, 6 - first.split(':').length)].join(':') as Mac
}

/** The host's end of the pair. Known in advance, so that the pod's side can be told it as its gateway's address. */
export const hostMac = (who: Identity): Mac => derived('76', ownerOf(who))

/** The device that holds back what a pod sends, by its name. Nobody ever addresses it; results tell it. */
export const ifbMac = (ifb: string): Mac => derived('76', ifb)

/**
 * The pod's end. It follows from the pod's address (IPv4 in the last four octets), so that an address that is given out again does not meet ARP and
 * neighbour caches that still hold its last user's MAC.
 */
export function podMac(who: Identity, ips: readonly Ip[]): Mac {
  const ip = ips.find(({ family }) => family === 4) ?? ips[0]
  if (ip?.family === 4)
    return `0a:58:${[...ipBytes(ip)].map((octet) => octet.toString(16).padStart(2, '0')).join(':')}` as Mac
  return derived('0a:58', ip === undefined ? ownerOf(who) : formatIp(ip))
}

/** A bridge of ours: pinned, or it would follow its ports and break the ARP caches of all pods. */
export const bridgeMac = (identity: string, bridge: string): Mac => derived('0a:77', `${identity} bridge ${bridge}`)

/** IFALIASZ is 256 with the final zero. */
const LONGEST_ALIAS = 255

/** The bridge of a port with its addresses: should it go while weftd is away, nobody else could tell. */
export type BridgeInAlias = { readonly name: string; readonly addresses: readonly Prefix[] }

/** What `ip link` shows at the host's end. Longer ones are cut; all that is needed to find the reservation stands first. */
export function aliasOf(
  who: Identity,
  pod: { readonly namespace: string; readonly name: string } | undefined,
  bridge?: BridgeInAlias
): string {
  const words = [ALIAS_MARK, who.network, who.containerId, who.ifname]
  const port =
    bridge === undefined ? [] : [`${BRIDGE_MARK}${[bridge.name, ...bridge.addresses.map(formatPrefix)].join(';')}`]
  const whole = [...words, ...port].join(' ')
  // Cut, it would tell another address.
  if (cut(whole) === whole) words.push(...port)
  if (pod !== undefined) words.push(pod.namespace === '' ? pod.name : `${pod.namespace}/${pod.name}`)
  return cut(words.join(' '))
}

/** Identifiers are ASCII, a pod's or interface's name may not be: cut between characters. */
function cut(text: string): string {
  if (/^[\x20-\x7e]*$/.test(text)) return text.slice(0, LONGEST_ALIAS)
  let [out, bytes] = ['', 0]
  for (const character of text) {
    bytes += encodeURIComponent(character).replaceAll(/%../g, '%').length
    if (bytes > LONGEST_ALIAS) break
    out += character
  }
  return out
}

export type Alias = {
  readonly network: string
  readonly containerId: string
  readonly ifname?: string
  readonly bridge?: BridgeInAlias
  readonly pod?: string
}

/** Reads an alias of ours; `undefined` for any other. What was cut is missing, and the last word may be. */
export function parseAlias(alias: string | undefined): Alias | undefined {
  const [mark, network, containerId, ifname, ...rest] = (alias ?? '').split(' ')
  if (mark !== ALIAS_MARK || !network || !containerId) return undefined
  const bridge = rest[0]?.startsWith(BRIDGE_MARK) ? bridgeIn(rest[0].slice(BRIDGE_MARK.length)) : undefined
  const pod = rest.slice(bridge === undefined ? 0 : 1).join(' ')
  return {
    ...{ network, containerId },
    ...(ifname ? { ifname } : {}),
    ...(bridge === undefined ? {} : { bridge }),
    ...(pod === '' ? {} : { pod })
  }
}

/** No pod's name begins with it. */
const BRIDGE_MARK = '@'

function bridgeIn(text: string): BridgeInAlias {
  const [name = '', ...addresses] = text.split(';')
  return { name, addresses: addresses.flatMap((each) => parsePrefix(each) ?? []) }
}

/** Whether a link with our name for this attachment may be taken for it: it says so, or it was born by a process that died before it could. */
export const mayBeOf = (who: Identity, alias: string | undefined): boolean =>
  alias === undefined ||
  alias === '' ||
  alias.startsWith(cut(`${ALIAS_MARK} ${who.network} ${who.containerId} ${who.ifname}`))
