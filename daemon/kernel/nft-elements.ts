// Elements of our sets and maps as messages of nf_tables (<linux/netfilter/nf_tables.h>), one transaction in one send. Pure.
//
// What a pod with host ports brings and takes is elements only. libnftables, which sets up all else, reads the ruleset's outline before each transaction,
// sixteen requests, however little is to be changed: a DEL with two host ports took 1.1 ms longer for it.
import { ipBytes, parseIp } from '../../ipam/address.ts'
import type { Change } from '../state/difference.ts'
import { type NftElement, parseMac } from '../state/object.ts'
import { type MessageWriter, NLM_F } from './message.ts'
import { batch, NFNL_SUBSYS, NFPROTO, netfilterRequest } from './nfnetlink.ts'

const NFT_MSG = { newElement: 12, deleteElement: 14 } as const
const NFTA_SET_ELEM_LIST = { table: 1, set: 2, elements: 3 } as const
const NFTA_LIST_ELEM = 1
const NFTA_SET_ELEM = { key: 1, data: 2, userdata: 6 } as const
const NFTA_DATA_VALUE = 1
/** libnftnl's first kind of user data, by which nft finds the comment. */
const NFTNL_UDATA_SET_ELEM_COMMENT = 0
const IFNAMSIZ = 16

/** IANA protocol numbers. */
const protocols: Readonly<Record<string, number>> = { tcp: 6, udp: 17, sctp: 132 }

/** The messages that carry the changes out, as one transaction. `undefined`: one of them is not about an element, or about one whose words are not of the kinds here. */
export function elementBatch(changes: readonly Change[]): readonly Buffer[] | undefined {
  const messages: Buffer[] = []
  for (const { do: verb, object, instead } of changes) {
    if (object.kind !== 'nft-element') return undefined
    const key = fieldBytes(object.key)
    const value = object.value === undefined ? undefined : fieldBytes(object.value)
    if (key === undefined || (object.value !== undefined && value === undefined)) return undefined
    // The kernel does not overwrite the value or the comment of a key.
    if (verb === 'remove' || instead !== undefined) messages.push(deleteElement(object, key))
    if (verb === 'put') messages.push(newElement(object, key, value))
  }
  return batch(NFNL_SUBSYS.nftables, messages)
}

const deleteElement = (element: NftElement, key: Buffer): Buffer =>
  request(NFT_MSG.deleteElement, 0, element, (writer) => datum(writer, NFTA_SET_ELEM.key, key))

const newElement = (element: NftElement, key: Buffer, value: Buffer | undefined): Buffer =>
  request(NFT_MSG.newElement, NLM_F.create, element, (writer) => {
    datum(writer, NFTA_SET_ELEM.key, key)
    if (value !== undefined) datum(writer, NFTA_SET_ELEM.data, value)
    if (element.comment === undefined) return
    const text = Buffer.from(`${element.comment}\0`)
    writer.bytes(NFTA_SET_ELEM.userdata, Buffer.from([NFTNL_UDATA_SET_ELEM_COMMENT, text.length, ...text]))
  })

const request = (type: number, flags: number, place: NftElement, fill: (writer: MessageWriter) => void): Buffer =>
  netfilterRequest(NFNL_SUBSYS.nftables, type, NFPROTO[place.family], flags)
    .text(NFTA_SET_ELEM_LIST.table, place.table)
    .text(NFTA_SET_ELEM_LIST.set, place.set)
    .nest(NFTA_SET_ELEM_LIST.elements, (list) => list.nest(NFTA_LIST_ELEM, fill))
    .done()

const datum = (writer: MessageWriter, type: number, value: Buffer): MessageWriter =>
  writer.nest(type, (nested) => nested.bytes(NFTA_DATA_VALUE, value))

/** A key or value as nft prints it, in the octets in which the kernel holds it: the parts of a concatenation begin at multiples of four. */
function fieldBytes(text: string): Buffer | undefined {
  const [first, ...others] = text.split(' . ').map(partBytes)
  if (others.length === 0) return first
  const parts = [first, ...others].map((part) => part && Buffer.concat([part], (part.length + 3) & ~3))
  return parts.every((part) => part !== undefined) ? Buffer.concat(parts) : undefined
}

/** The words tell their types apart: ifname is in quotes, inet_proto a name, inet_service a number, ether_addr and the addresses as always. */
function partBytes(word: string): Buffer | undefined {
  const name = /^"([^"*]{1,15})"$/.exec(word)?.[1]
  if (name !== undefined)
    return Buffer.byteLength(name) < IFNAMSIZ ? Buffer.concat([Buffer.from(name)], IFNAMSIZ) : undefined
  const protocol = protocols[word]
  if (protocol !== undefined) return Buffer.from([protocol])
  if (/^\d{1,5}$/.test(word) && Number(word) <= 0xffff) return Buffer.from([Number(word) >> 8, Number(word) & 0xff])
  const mac = parseMac(word)
  if (mac !== undefined) return Buffer.from(mac.replaceAll(':', ''), 'hex')
  const ip = parseIp(word)
  return ip && Buffer.from(ipBytes(ip))
}
