// Encodes changes of set and map elements as nf_tables messages (<linux/netfilter/nf_tables.h>), one transaction in one
// send.
//
// A pod with host ports adds and removes elements only. libnftables, which does all else, makes sixteen requests about
// the ruleset before each transaction, however small: a DEL with two host ports took 1.1 ms longer with it.
import { ipBytes, parseIp } from '../../../ipam/address.ts'
import type { Change } from '../../state/difference.ts'
import { type NftElement, parseMac } from '../../state/object.ts'
import { type MessageWriter, NLM_F } from '../netlink/message.ts'
import { batch, NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../netlink/nfnetlink.ts'
import { NFT_MSG, NFTA_DATA, NFTA_LIST_ELEM, NFTA_SET_ELEM, NFTA_SET_ELEM_LIST } from './uapi.ts'

/** libnftnl's type of user data for the comment. */
const NFTNL_UDATA_SET_ELEM_COMMENT = 0
const IFNAMSIZ = 16

/** IANA protocol numbers. */
const protocols = new Map([
  ['tcp', 6],
  ['udp', 17],
  ['sctp', 132]
])

/**
 * The messages of the changes, as one transaction. `undefined`: one is not about an element, or its key or value has a
 * type that is not encoded here.
 */
export function elementBatch(changes: readonly Change[]): readonly Buffer[] | undefined {
  const messages: Buffer[] = []
  for (const { do: verb, object, instead } of changes) {
    if (object.kind !== 'nft-element') return undefined
    const key = fieldOctets(object.key)
    if (key === undefined) return undefined
    // The kernel does not overwrite the value or the comment of a key.
    if (verb === 'remove' || instead !== undefined) messages.push(deleteElement(object, key))
    if (verb === 'remove') continue
    const value = object.value === undefined ? undefined : fieldOctets(object.value)
    if (object.value !== undefined && value === undefined) return undefined
    messages.push(newElement(object, key, value))
  }
  return batch(NFNL_SUBSYS.nftables, messages)
}

const deleteElement = (element: NftElement, key: Octets): Buffer =>
  request(NFT_MSG.deleteElement, 0, element, (writer) => datum(writer, NFTA_SET_ELEM.key, key))

const newElement = (element: NftElement, key: Octets, value: Octets | undefined): Buffer =>
  request(NFT_MSG.newElement, NLM_F.create, element, (writer) => {
    datum(writer, NFTA_SET_ELEM.key, key)
    if (value !== undefined) datum(writer, NFTA_SET_ELEM.data, value)
    if (element.comment === undefined) return
    const text = Buffer.from(`${element.comment}\0`)
    writer.bytes(NFTA_SET_ELEM.userdata, [NFTNL_UDATA_SET_ELEM_COMMENT, text.length, ...text])
  })

const request = (type: number, flags: number, place: NftElement, fill: (writer: MessageWriter) => void): Buffer =>
  netfilterRequest(NFNL_SUBSYS.nftables, type, NFPROTO[place.family], flags)
    .text(NFTA_SET_ELEM_LIST.table, place.table)
    .text(NFTA_SET_ELEM_LIST.set, place.set)
    .nest(NFTA_SET_ELEM_LIST.elements, (list) => list.nest(NFTA_LIST_ELEM, fill))
    .done()

const datum = (writer: MessageWriter, type: number, value: Octets): MessageWriter =>
  writer.nest(type, (nested) => nested.bytes(NFTA_DATA.value, value))

/**
 * Plain arrays: creating a Buffer for each of a pod's dozen parts of two to sixteen octets takes longer than encoding
 * them.
 */
type Octets = readonly number[]

/** Encodes a key or value as nft prints it: the parts of a concatenation begin at multiples of four octets. */
function fieldOctets(text: string): Octets | undefined {
  const words = text.split(' . ')
  const octets: number[] = []
  for (const word of words) {
    const part = partOctets(word)
    if (part === undefined) return undefined
    octets.push(...part)
    while (words.length > 1 && octets.length % 4 !== 0) octets.push(0)
  }
  return octets
}

/**
 * Types are recognised by their syntax: ifname is in quotes, inet_proto a name, inet_service a number, ether_addr and
 * addresses as usual.
 */
function partOctets(word: string): Octets | undefined {
  const name = /^"([^"*]{1,15})"$/.exec(word)?.[1]
  if (name !== undefined) {
    const octets = [...Buffer.from(name)]
    return octets.length < IFNAMSIZ ? [...octets, ...new Array<number>(IFNAMSIZ - octets.length).fill(0)] : undefined
  }
  const protocol = protocols.get(word)
  if (protocol !== undefined) return [protocol]
  if (/^\d{1,5}$/.test(word)) return Number(word) <= 0xffff ? [Number(word) >> 8, Number(word) & 0xff] : undefined
  const mac = parseMac(word)
  if (mac !== undefined) return mac.split(':').map((octet) => Number.parseInt(octet, 16))
  const ip = parseIp(word)
  return ip && [...ipBytes(ip)]
}
