// Deletes conntrack entries of UDP flows that no longer match the host ports (nfnetlink,
// <linux/netfilter/nfnetlink_conntrack.h>).
import { ipBytes, ipFromBytes, sameIp } from '../../../ipam/address.ts'
import type { Log } from '../../base/log.ts'
import type { StaleFlows } from '../../state/host-port.ts'
import type { Lane } from './lane.ts'
import { Attributes, type Message } from './message.ts'
import { NETLINK_NETFILTER, NFGENMSG, NFNL_SUBSYS, netfilterRequest } from './nfnetlink.ts'
import { RequestSocket } from './request-socket.ts'
import { afOf } from './uapi.ts'

const IPCTNL_MSG_CT = { get: 1, delete: 2 } as const
const CTA = { original: 1, reply: 2, status: 3, id: 12, zone: 18, filter: 25 } as const
const CTA_TUPLE = { ip: 1, proto: 2 } as const
const CTA_IP = { source: { 4: 1, 6: 3 }, destination: { 4: 2, 6: 4 } } as const
const CTA_PROTO = { number: 1, sourcePort: 2, destinationPort: 3 } as const
const CTA_FILTER = { original: 1, reply: 2 } as const
/**
 * CTA_FILTER_F_CTA_PROTO_NUM and _DST_PORT (nf_conntrack_netlink.c, Linux 5.8). An older kernel ignores the filter and
 * lists all entries.
 */
const BY_PROTOCOL_AND_PORT = 8 | 32
const UDP = 17
/** IPS_SEEN_REPLY, IPS_SRC_NAT, IPS_DST_NAT. */
const STATUS = { answered: 2, sourceTranslated: 16, destinationTranslated: 32 } as const

export class Conntrack implements Disposable {
  readonly #log: Log
  readonly #lane: Lane
  #socket: RequestSocket | undefined

  constructor(log: Log, lane: Lane) {
    this.#log = log
    this.#lane = lane
  }

  /** Never throws: a failure is logged; the entries expire when their sender is silent for half a minute. */
  async forget(flows: readonly StaleFlows[]): Promise<void> {
    for (const flow of flows) {
      try {
        await this.#forget(flow)
      } catch (error) {
        this.#log.warn({ err: error, port: flow.port }, 'conntrack entries of a UDP host port could not be deleted')
      }
    }
  }

  async #forget(flow: StaleFlows): Promise<void> {
    // Opened on first use: most nodes never need it.
    this.#socket ??= new RequestSocket(this.#lane, NETLINK_NETFILTER)
    const stale = await this.#socket.collect(
      () => listFlows(flow),
      'the connections',
      (message) => (isStale(message, flow) ? deleteFlow(message) : undefined)
    )
    // Entries that have expired meanwhile answer ENOENT.
    if (stale.length > 0) await this.#socket.send(stale)
  }

  [Symbol.dispose](): void {
    this.#socket?.[Symbol.dispose]()
  }
}

/** Requests the UDP flows of this family to this port. */
export const listFlows = ({ family, port }: Pick<StaleFlows, 'family' | 'port'>): Buffer =>
  netfilterRequest(NFNL_SUBSYS.conntrack, IPCTNL_MSG_CT.get, afOf(family))
    .nest(CTA.original, (tuple) =>
      tuple.nest(CTA_TUPLE.proto, (proto) => proto.u8(CTA_PROTO.number, UDP).port(CTA_PROTO.destinationPort, port))
    )
    .nest(CTA.filter, (filter) => filter.u32(CTA_FILTER.original, BY_PROTOCOL_AND_PORT).u32(CTA_FILTER.reply, 0))
    .done()

/** Whether a message's entry is one of these flows. */
export function isStale(message: Message, flow: StaleFlows): boolean {
  const attributes = new Attributes(message.body, NFGENMSG)
  const [original, reply] = [attributes.nested(CTA.original), attributes.nested(CTA.reply)]
  const [way, back] = [original?.nested(CTA_TUPLE.proto), reply?.nested(CTA_TUPLE.proto)]
  if (way?.u8(CTA_PROTO.number) !== UDP || way.port(CTA_PROTO.destinationPort) !== flow.port) return false
  const destination = original?.nested(CTA_TUPLE.ip)?.bytes(CTA_IP.destination[flow.family])
  const answerer = reply?.nested(CTA_TUPLE.ip)?.bytes(CTA_IP.source[flow.family])
  if (destination === undefined || answerer === undefined) return false
  if (flow.at !== undefined && !sameIp(flow.at, ipFromBytes(destination))) return false
  const status = attributes.bytes(CTA.status)?.readUInt32BE(0) ?? 0
  if (flow.translatedTo === undefined)
    return (status & (STATUS.answered | STATUS.sourceTranslated | STATUS.destinationTranslated)) === 0
  return (
    back?.port(CTA_PROTO.sourcePort) === flow.translatedTo.port &&
    Buffer.compare(answerer, ipBytes(flow.translatedTo.ip)) === 0
  )
}

/** Deletes exactly a message's entry: same tuple, same id. */
export function deleteFlow(message: Message): Buffer {
  const attributes = new Attributes(message.body, NFGENMSG)
  const writer = netfilterRequest(NFNL_SUBSYS.conntrack, IPCTNL_MSG_CT.delete, message.body.readUInt8(0))
  for (const type of [CTA.original, CTA.zone, CTA.id]) {
    const value = attributes.bytes(type)
    if (value !== undefined) writer.bytes(type, value)
  }
  return writer.done()
}
