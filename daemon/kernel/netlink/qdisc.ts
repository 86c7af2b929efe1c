// Encodes, decodes and dumps queueing disciplines: token buckets, and the redirect of incoming traffic to a device on
// which it can be shaped. Structures from <linux/pkt_sched.h>, <linux/pkt_cls.h>, <linux/tc_act/tc_mirred.h>.
import type { Discipline, KernelObject, Qdisc } from '../../state/object.ts'
import type { NameOf } from './decode.ts'
import type { Resolve } from './encode.ts'
import { decodeDivision, dumpDivision, putDivision } from './htb.ts'
import { Attributes, MalformedMessage, type Message, NLM_F } from './message.ts'
import type { RequestSocket } from './request-socket.ts'
import {
  bigRate,
  bytesIn,
  fields,
  MOST,
  ROOT_HANDLE,
  rateSpec,
  TC_H_ROOT,
  TC_U32_TERMINAL,
  TCA,
  TCA_U32,
  TCMSG,
  trafficMessage,
  zeros
} from './tc.ts'
import { RTM } from './uapi.ts'

const TC_H_INGRESS = 0xffff_fff1
/** The kernel's choice for ingress, `ffff:`. */
const INGRESS_HANDLE = 0xffff_0000
/**
 * The first entry of the first hash table of a u32 filter, `800::1`: a second put changes it instead of adding another.
 */
const FILTER_HANDLE = 0x8000_0001
/** Preference 1, every protocol (ETH_P_ALL in network order). */
const FILTER_INFO = (1 << 16) | 0x0300

const TCA_TBF = { parms: 1, rate64: 4, burst: 6 } as const
const TCA_ACT = { kind: 1, options: 2 } as const
const TCA_MIRRED_PARMS = 2
const TC_ACT_STOLEN = 4
const TCA_EGRESS_REDIR = 1

/** Creates the discipline, or changes it where it exists already. `instead`: what the kernel has there. */
export function putQdisc(qdisc: Qdisc, instead: KernelObject | undefined, resolve: Resolve): readonly Buffer[] {
  const { discipline } = qdisc
  // A token bucket is changed in place; the notification of a changed filter shows it as it was before (seen on 6.18).
  const anew = instead?.kind === 'qdisc' && !(instead.discipline.type === 'tbf' && discipline.type === 'tbf')
  const first = anew ? [removeQdisc(qdisc, resolve)] : []
  const index = resolve.index(qdisc.device)
  switch (discipline.type) {
    case 'tbf':
      return [...first, tokenBucket(discipline, index)]
    case 'htb':
      if (discipline.division === undefined) throw new Error('an htb discipline without its division')
      return [...first, ...putDivision(discipline.fingerprint, discipline.division, index)]
    case 'redirect':
      return [...first, ingress(index), redirection(index, resolve.index(discipline.to))]
    case 'other':
      throw new Error(`weftd creates no queueing discipline ${discipline.of}`)
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
      // struct tc_tbf_qopt. The bucket's size is in bytes in an attribute of its own (Linux 3.13), not a time, which
      // would overflow at low rates.
      options.bytes(TCA_TBF.parms, fields([...rateSpec(rate), ...rateSpec(0), [4, limit], [4, 0], [4, 0]]))
      if (rate >= MOST) options.bytes(TCA_TBF.rate64, bigRate(rate))
      options.u32(TCA_TBF.burst, burst)
    })
    .done()
}

const ingress = (index: number): Buffer =>
  trafficMessage(RTM.newQdisc, NLM_F.request | NLM_F.create, index, INGRESS_HANDLE, TC_H_INGRESS)
    .text(TCA.kind, 'ingress')
    .done()

/** A u32 filter that matches every packet; matchall would be shorter, but fewer kernels have it. */
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

/**
 * A discipline from a message about one, or a redirect from a message about its filter. `undefined`: default queues,
 * inner classes, ingress itself (its filter says what it does, except on deletion), and anything on a device that no
 * longer exists.
 */
export function decodeTraffic(message: Message, nameOf: NameOf): Qdisc | undefined {
  const { body, type } = message
  if (body.length < TCMSG) throw new MalformedMessage(`type ${type} with ${body.length} octets instead of ${TCMSG}`)
  const device = nameOf(body.readInt32LE(4))
  const [handle, parent] = [body.readUInt32LE(8), body.readUInt32LE(12)]
  if (device === undefined || handle === 0) return undefined
  const attributes = new Attributes(body, TCMSG)
  const kind = attributes.text(TCA.kind) ?? ''
  // Options of other kinds need not be attributes: pfifo has a bare structure.
  const options = kind === 'tbf' || kind === 'htb' || kind === 'u32' ? attributes.nested(TCA.options) : undefined
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
  if (kind === 'htb' && options !== undefined) return decodeDivision(options)
  const parms = options?.bytes(TCA_TBF.parms)
  if (parms === undefined || parms.length < 32) return { type: 'other', of: kind }
  const rate = Number(options?.bytes(TCA_TBF.rate64)?.readBigUInt64LE(0) ?? parms.readUInt32LE(8))
  return { type: 'tbf', rate, burst: bytesIn(parms.readUInt32LE(28), rate), limit: parms.readUInt32LE(24) }
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

/**
 * All disciplines but default ones, with each ingress filter's redirect and each htb's division. Errors: KernelError.
 */
export async function dumpQdiscs(socket: RequestSocket, nameOf: NameOf): Promise<readonly Qdisc[]> {
  const found = new Map<number, Qdisc[]>()
  const redirecting: number[] = []
  await socket.dump(
    getQdiscs,
    'the queueing disciplines',
    (message) => {
      const qdisc = decodeTraffic(message, nameOf)
      if (message.body.length < TCMSG) return
      const index = message.body.readInt32LE(4)
      if (qdisc !== undefined) found.set(index, [...(found.get(index) ?? []), qdisc])
      else if (message.body.readUInt32LE(8) === INGRESS_HANDLE) redirecting.push(index)
    },
    () => {
      found.clear()
      redirecting.splice(0)
    }
  )
  const whole: Qdisc[] = []
  for (const [index, qdiscs] of found)
    for (const qdisc of qdiscs)
      whole.push(qdisc.discipline.type === 'htb' ? { ...qdisc, discipline: await dumpDivision(socket, index) } : qdisc)
  for (const index of redirecting) whole.push(...(await dumpRedirection(socket, index, nameOf)))
  return whole
}

/** A device that was deleted meanwhile answers with nothing. */
const dumpRedirection = (socket: RequestSocket, index: number, nameOf: NameOf): Promise<readonly Qdisc[]> =>
  socket.collect(
    () => getFilters(index),
    `the ingress filters of ${nameOf(index)}`,
    (message) => decodeTraffic(message, nameOf)
  )
