// Queueing disciplines: token buckets, and the redirection of what comes in to a device where a queue can hold it. To messages and back; a dump.
// Structures from <linux/pkt_sched.h>, <linux/pkt_cls.h>, <linux/tc_act/tc_mirred.h>.
import type { Discipline, KernelObject, Qdisc } from '../state/object.ts'
import type { NameOf } from './decode.ts'
import type { Resolve } from './encode.ts'
import { Attributes, MalformedMessage, type Message, MessageWriter, NLM_F } from './message.ts'
import type { Rtnetlink } from './rtnetlink.ts'
import { RTM } from './uapi.ts'

const TC_H_ROOT = 0xffff_ffff
const TC_H_INGRESS = 0xffff_fff1
/** Handles by which our disciplines are known: `1:` and, the kernel's choice for ingress, `ffff:`. */
const ROOT_HANDLE = 0x0001_0000
const INGRESS_HANDLE = 0xffff_0000
/** The first entry of the first hash table of a u32 filter, `800::1`: a second put changes it instead of adding another. */
const FILTER_HANDLE = 0x8000_0001
/** Preference 1, every protocol (ETH_P_ALL in network order). */
const FILTER_INFO = (1 << 16) | 0x0300

const TCA = { kind: 1, options: 2 } as const
const TCA_TBF = { parms: 1, rate64: 4, burst: 6 } as const
const TCA_U32 = { sel: 5, act: 7 } as const
const TCA_ACT = { kind: 1, options: 2 } as const
const TCA_MIRRED_PARMS = 2
const TC_U32_TERMINAL = 1
const TC_ACT_STOLEN = 4
const TCA_EGRESS_REDIR = 1
const TC_LINKLAYER_ETHERNET = 1
/** struct tcmsg. */
const TCMSG = 20
const MOST = 0xffff_ffff

function trafficMessage(type: number, flags: number, index: number, handle: number, parent: number, info = 0) {
  return new MessageWriter(type, flags).fixed([4, 0], [4, index], [4, handle], [4, parent], [4, info])
}

/** Makes the discipline, or changes it where it stands already. `instead`: what the kernel has there. */
export function putQdisc(qdisc: Qdisc, instead: KernelObject | undefined, resolve: Resolve): readonly Buffer[] {
  const { discipline } = qdisc
  // A token bucket is changed in place; a filter that is changed is notified as it was before (seen on 6.18).
  const anew = instead?.kind === 'qdisc' && !(instead.discipline.type === 'tbf' && discipline.type === 'tbf')
  const first = anew ? [removeQdisc(qdisc, resolve)] : []
  const index = resolve.index(qdisc.device)
  switch (discipline.type) {
    case 'tbf':
      return [...first, tokenBucket(discipline, index)]
    case 'redirect':
      return [...first, ingress(index), redirection(index, resolve.index(discipline.to))]
    case 'other':
      throw new Error(`weftd makes no queueing discipline ${discipline.of}`)
  }
}

export const removeQdisc = (qdisc: Qdisc, resolve: Resolve): Buffer =>
  trafficMessage(
    RTM.deleteQdisc,
    NLM_F.request,
    resolve.index(qdisc.device),
    0,
    qdisc.parent === 'root' ? TC_H_ROOT : TC_H_INGRESS
  ).done()

function tokenBucket({ rate, burst, limit }: Extract<Discipline, { type: 'tbf' }>, index: number): Buffer {
  return trafficMessage(RTM.newQdisc, NLM_F.request | NLM_F.create | NLM_F.replace, index, ROOT_HANDLE, TC_H_ROOT)
    .text(TCA.kind, 'tbf')
    .nest(TCA.options, (options) => {
      // struct tc_tbf_qopt. The bucket's size comes as bytes in an attribute of its own (Linux 3.13), not as a time that would overflow at low rates.
      options.bytes(TCA_TBF.parms, fields([...rateSpec(rate), ...rateSpec(0), [4, limit], [4, 0], [4, 0]]))
      if (rate >= MOST) options.bytes(TCA_TBF.rate64, bigRate(rate))
      options.u32(TCA_TBF.burst, burst)
    })
    .done()
}

type Fields = readonly (readonly [octets: 1 | 2 | 4, value: number])[]

/** struct tc_ratespec: a rate of 32 bits, which RATE64 replaces where it does not fit. */
const rateSpec = (rate: number): Fields => [
  [1, 0],
  [1, rate === 0 ? 0 : TC_LINKLAYER_ETHERNET],
  [2, 0],
  [2, 0],
  [2, 0],
  [4, Math.min(rate, MOST)]
]

function fields(list: Fields): Buffer {
  const bytes = Buffer.alloc(list.reduce((sum, [octets]) => sum + octets, 0))
  let at = 0
  for (const [octets, value] of list) at = bytes.writeUIntLE(value, at, octets)
  return bytes
}

function bigRate(rate: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(rate))
  return bytes
}

const ingress = (index: number): Buffer =>
  trafficMessage(RTM.newQdisc, NLM_F.request | NLM_F.create, index, INGRESS_HANDLE, TC_H_INGRESS)
    .text(TCA.kind, 'ingress')
    .done()

/** A u32 filter that every packet meets; matchall would say it shorter, but fewer kernels have it. */
const redirection = (index: number, to: number): Buffer =>
  trafficMessage(RTM.newFilter, NLM_F.request | NLM_F.create, index, FILTER_HANDLE, INGRESS_HANDLE, FILTER_INFO)
    .text(TCA.kind, 'u32')
    .nest(TCA.options, (options) =>
      options
        // struct tc_u32_sel with one key whose mask is empty.
        .bytes(TCA_U32.sel, fields([[1, TC_U32_TERMINAL], [1, 0], [1, 1], [1, 0], ...zeros(12 + 16)]))
        .nest(TCA_U32.act, (acts) =>
          acts.nest(1, (act) =>
            act.text(TCA_ACT.kind, 'mirred').nest(TCA_ACT.options, (mirred) =>
              // struct tc_mirred: index, capabilities, action, two counts, what to do, where to.
              mirred.bytes(
                TCA_MIRRED_PARMS,
                fields([
                  [4, 0],
                  [4, 0],
                  [4, TC_ACT_STOLEN],
                  [4, 0],
                  [4, 0],
                  [4, TCA_EGRESS_REDIR],
                  [4, to]
                ])
              )
            )
          )
        )
    )
    .done()

const zeros = (octets: number): Fields => Array.from({ length: octets / 4 }, () => [4, 0] as const)

/**
 * A discipline from a message about one, or a redirection from a message about its filter. `undefined`: default queues, inner classes, ingress as such
 * (what it does is in its filter, unless it goes), and whatever hangs on a device that is gone.
 */
export function decodeTraffic(message: Message, nameOf: NameOf): Qdisc | undefined {
  const { body, type } = message
  if (body.length < TCMSG) throw new MalformedMessage(`type ${type} with ${body.length} octets instead of ${TCMSG}`)
  const device = nameOf(body.readInt32LE(4))
  const [handle, parent] = [body.readUInt32LE(8), body.readUInt32LE(12)]
  if (device === undefined || handle === 0) return undefined
  const attributes = new Attributes(body, TCMSG)
  const kind = attributes.text(TCA.kind) ?? ''
  // Others' options need not be attributes: pfifo has a bare structure.
  const options = kind === 'tbf' || kind === 'u32' ? attributes.nested(TCA.options) : undefined
  if (type === RTM.newFilter || type === RTM.deleteFilter) {
    const to = parent === INGRESS_HANDLE && kind === 'u32' ? options && redirectedTo(options, nameOf) : undefined
    return to === undefined
      ? undefined
      : { kind: 'qdisc', device, parent: 'ingress', discipline: { type: 'redirect', to } }
  }
  if (parent === TC_H_INGRESS) {
    if (type === RTM.newQdisc && kind === 'ingress') return undefined
    return { kind: 'qdisc', device, parent: 'ingress', discipline: { type: 'other', of: kind } }
  }
  if (parent !== TC_H_ROOT) return undefined
  return { kind: 'qdisc', device, parent: 'root', discipline: rootDiscipline(kind, options) }
}

function rootDiscipline(kind: string, options: Attributes | undefined): Discipline {
  const parms = options?.bytes(TCA_TBF.parms)
  if (parms === undefined || parms.length < 32) return { type: 'other', of: kind }
  const rate = Number(options?.bytes(TCA_TBF.rate64)?.readBigUInt64LE(0) ?? parms.readUInt32LE(8))
  // The bucket's size as the time it takes to fill it, in steps of 64 ns.
  const burst = Math.round((parms.readUInt32LE(28) * 64 * rate) / 1e9)
  return { type: 'tbf', rate, burst, limit: parms.readUInt32LE(24) }
}

function redirectedTo(options: Attributes, nameOf: NameOf): string | undefined {
  const action = options.nested(TCA_U32.act)?.nested(1)
  const parms =
    action?.text(TCA_ACT.kind) === 'mirred' ? action.nested(TCA_ACT.options)?.bytes(TCA_MIRRED_PARMS) : undefined
  return parms !== undefined && parms.length >= 28 && parms.readUInt32LE(20) === TCA_EGRESS_REDIR
    ? nameOf(parms.readInt32LE(24))
    : undefined
}

const getQdiscs = () => trafficMessage(RTM.getQdisc, NLM_F.request, 0, 0, 0).done()
const getFilters = (index: number) => trafficMessage(RTM.getFilter, NLM_F.request, index, 0, INGRESS_HANDLE).done()

/** Every discipline that somebody chose, and for each ingress where its filter sends packets to. Errors: KernelError. */
export async function dumpQdiscs(socket: Rtnetlink, nameOf: NameOf): Promise<readonly Qdisc[]> {
  const found: Qdisc[] = []
  const redirecting: number[] = []
  await socket.dump(
    getQdiscs,
    'the queueing disciplines',
    (message) => {
      const qdisc = decodeTraffic(message, nameOf)
      if (qdisc !== undefined) found.push(qdisc)
      else if (message.body.length >= TCMSG && message.body.readUInt32LE(8) === INGRESS_HANDLE)
        redirecting.push(message.body.readInt32LE(4))
    },
    () => {
      found.splice(0)
      redirecting.splice(0)
    }
  )
  for (const index of redirecting) found.push(...(await dumpRedirection(socket, index, nameOf)))
  return found
}

async function dumpRedirection(socket: Rtnetlink, index: number, nameOf: NameOf): Promise<readonly Qdisc[]> {
  const found: Qdisc[] = []
  // A device that went meanwhile answers with nothing.
  await socket.dump(
    () => getFilters(index),
    `the ingress filters of ${nameOf(index)}`,
    (message) => {
      const qdisc = decodeTraffic(message, nameOf)
      if (qdisc !== undefined) found.push(qdisc)
    },
    () => found.splice(0)
  )
  return found
}
