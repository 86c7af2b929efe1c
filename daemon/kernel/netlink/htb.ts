// Shapes a part of a device's outgoing traffic: an htb class with a queue in it, and a u32 filter for each prefix.
// Structures from <linux/pkt_sched.h>, <linux/pkt_cls.h>.
//
// The kernel notifies the discipline, its class and its filters separately. So the discipline carries a fingerprint of
// all of them in a field of htb that only matters for classes without a quantum, and a dump reads the parts again: if
// another program changed one, the fingerprint differs.
import { type Family, ipBytes, ipFromBytes, netmask, network, type Prefix, width } from '../../../ipam/address.ts'
import { divided } from '../../state/division.ts'
import type { Discipline, Division } from '../../state/object.ts'
import { Attributes, type Message, NLM_F } from './message.ts'
import type { RequestSocket } from './request-socket.ts'
import {
  bigRate,
  bytesIn,
  type Fields,
  fields,
  MOST,
  ROOT_HANDLE,
  rateSpec,
  TC_H_ROOT,
  TC_U32_TERMINAL,
  TCA,
  TCA_U32,
  TCMSG,
  ticksFor,
  trafficMessage,
  zeros
} from './tc.ts'
import { RTM } from './uapi.ts'

/** The only class, `1:1`, and the queue in it, `2:`. Packets classified to `1:0` are not shaped. */
const CLASS = ROOT_HANDLE | 1
const QUEUE_HANDLE = 0x0002_0000
const TCA_HTB = { parms: 1, init: 2, rate64: 6, ceil64: 7 } as const
const HTB_VERSION = 3
/** Bytes that the class may send in its turn; it is the only one. */
const QUANTUM = 60_000
/** ETH_P_IP and ETH_P_IPV6 in network order. A preference has filters of one protocol only. */
const FILTER_INFO: Readonly<Record<Family, number>> = { 4: (1 << 16) | 0x0008, 6: (2 << 16) | 0xdd86 }
/** Octets from the beginning of the header (RFC 791 3.1, RFC 8200 3). */
const OFFSET = { 4: { source: 12, destination: 16 }, 6: { source: 8, destination: 24 } } as const

/** Where there is no discipline, class or filter yet. */
export function putDivision(fingerprint: number, division: Division, index: number): readonly Buffer[] {
  const { rate, burst, limit, limits } = division
  const flags = NLM_F.request | NLM_F.create | NLM_F.replace
  const discipline = trafficMessage(RTM.newQdisc, flags, index, ROOT_HANDLE, TC_H_ROOT)
    .text(TCA.kind, 'htb')
    .nest(TCA.options, (options) => {
      // struct tc_htb_glob: version, rate2quantum, the default class, two that the kernel fills in.
      const usual = limits === 'these' ? 0 : CLASS & 0xffff
      options.bytes(TCA_HTB.init, fields([[4, HTB_VERSION], [4, fingerprint], [4, usual], ...zeros(8)]))
    })
  const buckets = [ticksFor(burst, rate), ticksFor(burst, rate)].map((ticks) => [4, ticks] as const)
  const held = trafficMessage(RTM.newClass, NLM_F.request | NLM_F.create, index, CLASS, ROOT_HANDLE)
    .text(TCA.kind, 'htb')
    .nest(TCA.options, (options) => {
      // struct tc_htb_opt: rate, ceiling, their buckets, quantum, level, priority.
      options.bytes(
        TCA_HTB.parms,
        fields([...rateSpec(rate), ...rateSpec(rate), ...buckets, [4, QUANTUM], [4, 0], [4, 0]])
      )
      if (rate >= MOST) options.bytes(TCA_HTB.rate64, bigRate(rate)).bytes(TCA_HTB.ceil64, bigRate(rate))
    })
  // struct tc_fifo_qopt, without an attribute around it.
  const queue = trafficMessage(RTM.newQdisc, flags, index, QUEUE_HANDLE, CLASS)
    .text(TCA.kind, 'bfifo')
    .bytes(TCA.options, fields([[4, limit]]))
  const filters = division.subnets.map((prefix) => filter(division, network(prefix), index))
  return [discipline.done(), held.done(), queue.done(), ...filters]
}

function filter({ side, limits }: Division, prefix: Prefix, index: number): Buffer {
  const { family } = prefix.ip
  const keys = keysOf(prefix, OFFSET[family][side])
  return trafficMessage(
    RTM.newFilter,
    NLM_F.request | NLM_F.create | NLM_F.exclusive,
    index,
    0,
    ROOT_HANDLE,
    FILTER_INFO[family]
  )
    .text(TCA.kind, 'u32')
    .nest(TCA.options, (options) =>
      options
        .u32(TCA_U32.classid, limits === 'these' ? CLASS : ROOT_HANDLE)
        // struct tc_u32_sel and its keys.
        .bytes(TCA_U32.sel, fields([[1, TC_U32_TERMINAL], [1, 0], [1, keys.length / 4], [1, 0], ...zeros(12), ...keys]))
    )
    .done()
}

/**
 * struct tc_u32_key for each word of the address: mask and value in network order, the word's offset, no mask for the
 * offset.
 */
function keysOf(prefix: Prefix, offset: number): Fields {
  const [address, mask] = [Buffer.from(ipBytes(prefix.ip)), Buffer.from(ipBytes(netmask(prefix)))]
  const words = Array.from({ length: Math.max(1, Math.ceil(prefix.length / 32)) }, (_, word) => word * 4)
  return words.flatMap((at) => [
    [4, mask.readUInt32LE(at)] as const,
    [4, address.readUInt32LE(at)] as const,
    [4, offset + at] as const,
    [4, 0] as const
  ])
}

/** From a notification: the parts are known by the fingerprint only. */
export function decodeDivision(options: Attributes): Discipline {
  const init = options.bytes(TCA_HTB.init)
  return { type: 'htb', fingerprint: init !== undefined && init.length >= 12 ? init.readUInt32LE(4) : 0 }
}

type Parts = {
  limits?: Division['limits']
  held?: Pick<Division, 'rate' | 'burst'>
  limit?: number
  readonly filters: { readonly side: Division['side']; readonly prefix: Prefix; readonly to: number }[]
  isForeign: boolean
}

/**
 * What exists, with the fingerprint computed from its parts: 0 when these are not as Weft creates them. Errors:
 * KernelError.
 */
export async function dumpDivision(socket: RequestSocket, index: number): Promise<Discipline> {
  const parts: Parts = { filters: [], isForeign: false }
  const read = async (what: string, type: number, parent: number, reader: (message: Message) => void) => {
    const ask = () => trafficMessage(type, NLM_F.request, index, 0, parent).done()
    await socket.dump(ask, what, reader, () => parts.filters.splice(0))
  }
  const own = (message: Message) => message.body.length >= TCMSG && message.body.readInt32LE(4) === index
  await read('the queueing disciplines', RTM.getQdisc, 0, (message) => own(message) && readQdisc(message, parts))
  await read('the classes of a device', RTM.getClass, 0, (message) => own(message) && readClass(message, parts))
  await read(
    'the filters of a device',
    RTM.getFilter,
    ROOT_HANDLE,
    (message) => own(message) && readFilter(message, parts)
  )
  const division = divisionOf(parts)
  return division === undefined ? { type: 'htb', fingerprint: 0 } : divided(division)
}

export function divisionOf({ limits, held, limit, filters, isForeign }: Parts): Division | undefined {
  const [first] = filters
  if (isForeign || limits === undefined || held === undefined || limit === undefined || first === undefined)
    return undefined
  const target = limits === 'these' ? CLASS : ROOT_HANDLE
  if (filters.some(({ to, side }) => to !== target || side !== first.side)) return undefined
  return { ...held, limit, limits, side: first.side, subnets: filters.map(({ prefix }) => prefix) }
}

export function readQdisc({ body }: Message, parts: Parts): void {
  const attributes = new Attributes(body, TCMSG)
  const [parent, kind] = [body.readUInt32LE(12), attributes.text(TCA.kind)]
  if (parent === TC_H_ROOT && kind === 'htb') {
    const usual = attributes.nested(TCA.options)?.bytes(TCA_HTB.init)?.readUInt32LE(8)
    parts.limits = usual === 0 ? 'these' : 'others'
  } else if (parent === CLASS && kind === 'bfifo') parts.limit = attributes.bytes(TCA.options)?.readUInt32LE(0) ?? 0
}

export function readClass({ body }: Message, parts: Parts): void {
  const options = new Attributes(body, TCMSG).nested(TCA.options)
  const parms = options?.bytes(TCA_HTB.parms)
  if (body.readUInt32LE(8) !== CLASS || parms === undefined || parms.length < 28) {
    parts.isForeign = true
    return
  }
  const rate = Number(options?.bytes(TCA_HTB.rate64)?.readBigUInt64LE(0) ?? parms.readUInt32LE(8))
  parts.held = { rate, burst: bytesIn(parms.readUInt32LE(24), rate) }
}

/** A preference and each of its hash tables have entries of their own, without keys. */
export function readFilter({ body }: Message, parts: Parts): void {
  const attributes = new Attributes(body, TCMSG)
  const isU32 = attributes.text(TCA.kind) === 'u32'
  const options = isU32 ? attributes.nested(TCA.options) : undefined
  const sel = options?.bytes(TCA_U32.sel)
  if (isU32 && sel === undefined) return
  const found = sel === undefined ? undefined : prefixIn(sel, body.readUInt32LE(16) & 0xffff)
  const to = options?.u32(TCA_U32.classid)
  if (found === undefined || to === undefined) parts.isForeign = true
  else parts.filters.push({ ...found, to })
}

function prefixIn(sel: Buffer, protocol: number): Pick<Parts['filters'][number], 'side' | 'prefix'> | undefined {
  const family = ([4, 6] as const).find((each) => (FILTER_INFO[each] & 0xffff) === protocol)
  const count = sel.readUInt8(2)
  if (family === undefined || count === 0 || sel.length < 16 + 16 * count) return undefined
  const first = sel.readInt32LE(16 + 8)
  const side = (['source', 'destination'] as const).find((each) => OFFSET[family][each] === first)
  const [address, mask] = [Buffer.alloc(width(family) / 8), Buffer.alloc(width(family) / 8)]
  for (let key = 0; key < count; key++) {
    const at = 16 + 16 * key
    const word = sel.readInt32LE(at + 8) - first
    if (word !== key * 4 || word + 4 > address.length) return undefined
    sel.copy(mask, word, at, at + 4)
    sel.copy(address, word, at + 4, at + 8)
  }
  const bits = [...mask].map((octet) => octet.toString(2).padStart(8, '0')).join('')
  const ip = ipFromBytes(address)
  if (side === undefined || ip === undefined || !/^1*0*$/.test(bits)) return undefined
  return { side, prefix: { ip, length: bits.lastIndexOf('1') + 1 } }
}
