// Names, MACs and aliases of a pod's links, and marks of its nftables elements: derived from network, container id and
// interface name.
import { formatIp, formatPrefix, type Ip, ipBytes, type Prefix, parsePrefix } from '../../ipam/address.ts'
import type { BridgeVlans } from '../../plugins/attachment.ts'
import { printable } from '../base/printable.ts'
import { digest } from '../state/digest.ts'
import type { Mac } from '../state/object.ts'
import { ALIAS_MARK, CHAINED_MARK } from '../state/ownership.ts'
import { parseVlansWord, vlansWord } from './vlans.ts'

/** What identifies an attachment on this host. */
export type Identity = { readonly network: string; readonly containerId: string; readonly ifname: string }

/** Key of an attachment: its owner in the desired state, and its queue of verbs. */
export const ownerOf = (who: Identity): string => `pod ${who.network} ${who.containerId} ${who.ifname}`

/** Owner of the bandwidth plugin's objects for an attachment. */
export const limitsOwnerOf = (who: Identity): string => `limits ${ownerOf(who)}`

/** Owner of the portmap plugin's objects for an attachment. */
export const portsOwnerOf = (who: Identity): string => markedOwnerOf(portMark(who))

/** Owner of a chained plugin's nftables elements with this mark. */
export const markedOwnerOf = (mark: string): string => `marked ${mark}`

/**
 * First word of the comment of a chained plugin's nftables elements: digests of network and attachment, so that DEL and
 * GC find them without any state of weftd's, whichever plugin made the interface.
 */
const markOf = (who: Identity): string => `${networkMark(who.network)}${digest(ownerOf(who)).slice(0, 8)}`
/** Mark of portmap's elements. */
export const portMark = markOf
/** Marks of the firewall plugin's elements: isolation and forwarding. */
export const isolationMark = (who: Identity): string => `${markOf(who)}-apart`
export const forwardMark = (who: Identity): string => `${markOf(who)}-through`
/** Prefix of the marks of all attachments of a network. */
export const networkMark = (network: string): string => `${CHAINED_MARK}${digest(network).slice(0, 8)}-`

/** All owners whose objects end with an interface of Weft's, those of chained plugins included. */
export const ownersOf = (who: Identity): readonly string[] => [
  ownerOf(who),
  bridgeOwnerOf(who),
  portsOwnerOf(who),
  markedOwnerOf(isolationMark(who)),
  markedOwnerOf(forwardMark(who)),
  limitsOwnerOf(who)
]

/** Owner of the bridge's objects that an attachment wants; other attachments want the same ones. */
export const bridgeOwnerOf = (who: Identity): string => `bridge of ${ownerOf(who)}`

/** The host's end: `veth` and eight hex digits, so that a DEL finds it without namespace and without state. */
export const hostName = (who: Identity): string => `veth${digest(ownerOf(who)).slice(0, 8)}`

/** The container's end while it is in the host's namespace, before the caller moves and renames it. */
export const peerName = (who: Identity): string => `peer${digest(ownerOf(who)).slice(0, 8)}`

/**
 * A MAC derived from text; `first` makes it locally administered and unicast (IEEE 802c: second hex digit 2, 6, a or
 * e).
 */
const derived = (first: '76' | '0a:58' | '0a:77', text: string): Mac => {
  const octets = digest(text).match(/../g) ?? []
  return [first, ...octets.slice(0, 6 - first.split(':').length)].join(':') as Mac
}

/** Of the host's end. Known in advance, so that the pod's neighbour entry of its gateway can have it. */
export const hostMac = (who: Identity): Mac => derived('76', ownerOf(who))

/** Of the ifb that shapes what a pod sends. Nothing is ever sent to it; results report it. */
export const ifbMac = (ifb: string): Mac => derived('76', ifb)

/**
 * Of the pod's end. It follows from the pod's address (IPv4 in the last four octets), so that when an address is
 * reused, ARP and neighbour caches with its previous MAC stay correct.
 */
export function podMac(who: Identity, ips: readonly Ip[]): Mac {
  const ip = ips.find(({ family }) => family === 4) ?? ips[0]
  if (ip?.family === 4)
    return `0a:58:${[...ipBytes(ip)].map((octet) => octet.toString(16).padStart(2, '0')).join(':')}` as Mac
  return derived('0a:58', ip === undefined ? ownerOf(who) : formatIp(ip))
}

/** Of a bridge. Fixed: otherwise it would follow the bridge's ports, and the ARP caches of all pods would be wrong. */
export const bridgeMac = (identity: string, bridge: string): Mac => derived('0a:77', `${identity} bridge ${bridge}`)

/** IFALIASZ is 256 with the final zero. */
const LONGEST_ALIAS = 255

/**
 * The bridge of a port with its addresses and the port's VLANs: what is deleted while weftd is down can be restored
 * from here.
 */
export type BridgeInAlias = {
  readonly name: string
  readonly addresses: readonly Prefix[]
  readonly vlans?: BridgeVlans
}

/**
 * What `ip link` shows for the host's end, which prints it raw: names from outside are made printable. Longer ones are
 * cut; what is needed to find the reservation comes first.
 */
export function aliasOf(
  who: Identity,
  pod: { readonly namespace: string; readonly name: string } | undefined,
  bridge?: BridgeInAlias
): string {
  const words = [beginningOf(who)]
  const port = bridge === undefined ? [] : [`${BRIDGE_MARK}${wordsOf(bridge).join(';')}`]
  const whole = [...words, ...port].join(' ')
  // Cut, it would name a wrong address; escaped, a wrong bridge.
  if (cut(printable(whole)) === whole) words.push(...port)
  if (pod !== undefined) words.push(noMark(printable(pod.namespace === '' ? pod.name : `${pod.namespace}/${pod.name}`)))
  return cut(words.join(' '))
}

const beginningOf = (who: Identity): string =>
  `${ALIAS_MARK} ${who.network} ${who.containerId} ${printable(who.ifname)}`

/** CNI_ARGS may contain anything as a pod's name: it must not be read back as a bridge. */
const noMark = (text: string): string =>
  text.startsWith(BRIDGE_MARK) ? `\\u0040${text.slice(BRIDGE_MARK.length)}` : text

const wordsOf = ({ name, addresses, vlans }: BridgeInAlias): readonly string[] => [
  name,
  ...(vlans === undefined ? [] : [vlansWord(vlans)]),
  ...addresses.map(formatPrefix)
]

/** Cuts between characters: a pod's or interface's name may have others than ASCII. */
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

/**
 * Reads an alias of Weft's; `undefined` for any other. What was cut is missing, and the last word may be incomplete.
 */
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

/** No pod's name in an alias begins with this character. */
const BRIDGE_MARK = '@'

function bridgeIn(text: string): BridgeInAlias {
  const [name = '', ...words] = text.split(';')
  const [vlans] = words.flatMap((word) => parseVlansWord(word) ?? [])
  return {
    name,
    addresses: words.flatMap((each) => parsePrefix(each) ?? []),
    ...(vlans === undefined ? {} : { vlans })
  }
}

/**
 * Whether a link with this attachment's name may be its own: its alias says so, as it is written now or with the names
 * as they came, or it has none because the process died before setting it.
 */
export const mayBeOf = (who: Identity, alias: string | undefined): boolean =>
  alias === undefined ||
  alias === '' ||
  alias.startsWith(cut(beginningOf(who))) ||
  alias.startsWith(cut(`${ALIAS_MARK} ${who.network} ${who.containerId} ${who.ifname}`))
