// The sockets that probes leave by and arrive on: one for each way and family, opened anew when this node's address
// changes, and the reason while one can't be opened.
import { type Family, formatIp, type Ip, ipBytes, sameIp } from '../../ipam/address.ts'
import { reasonOf } from '../base/error.ts'
import { AT_MARK, MAGIC, type Way } from './probe-packet.ts'

export interface ProbeSocket extends Disposable {
  /** Has it sent by the next flush(), or before; its first 64 octets are copied, those behind them are zero. */
  send(to: Uint8Array, message: Uint8Array, tag: number): void
  /** Never waits. */
  flush(): void
  /** Reads what has arrived. */
  drain(): void
  /** Calls once when something has arrived. */
  watch(ready: () => void): void
}

export type Capture = Omit<ProbeSocket, 'send' | 'flush' | 'watch'>

/**
 * The beginning of a packet; milliseconds since it arrived, since it is read later; how many octets it has; and by IPv6
 * where it came from.
 */
export type PacketReceived = (packet: Uint8Array, ago: number, length?: number, source?: Uint8Array) => void

/** `isCaptured`: seen before the firewall. */
export type Arrival = {
  readonly family: Family
  readonly ago: number
  readonly isCaptured: boolean
  readonly length?: number | undefined
  readonly source?: Uint8Array | undefined
}
type Arrived = (packet: Uint8Array, arrival: Arrival) => void

/** Opens a raw socket (os/raw-socket.ts). Errors: with `errnoName` where the kernel refuses. */
export type OpenProbeSocket = (options: {
  readonly family: Family
  readonly source: Uint8Array
  readonly magic: string
  readonly mark?: { readonly at: number; readonly value: number }
  readonly tos?: number
  readonly received?: PacketReceived
  /** A message that the kernel did not send, by its tag, with the name of the error. */
  readonly refused?: (tag: number, name: string) => void
}) => ProbeSocket

/** Opens a packet socket (os/raw-socket.ts), which sees what the firewall drops. Errors: as above. */
export type OpenCapture = (options: {
  readonly family: Family
  readonly device: string
  readonly magic: string
  readonly received: PacketReceived
}) => Capture

/** For how long a capture lasts, in tenths of a second; the next miss begins another, by then perhaps on a new device. */
const CAPTURED = 300

/** Between two attempts to open a socket, in tenths of a second. */
const RETRY = 20

/** Tunnels of both families. */
const MOST_CAPTURES = 4

type Held = { readonly socket: ProbeSocket; readonly source: Ip }
type Failed = { readonly reason: string; readonly source: Ip; readonly at: number }

export class ProbeSockets implements Disposable {
  readonly #open: OpenProbeSocket
  readonly #arrived: Arrived
  readonly #refused: (tag: number, name: string) => void
  readonly #tos: number
  readonly #mark: number
  readonly #held = new Map<string, Held>()
  readonly #failed = new Map<string, Failed>()
  readonly #captures = new Map<string, { readonly socket: Capture; readonly until: number }>()
  readonly #capture: OpenCapture

  /** `mark`: of probes of this process. `tos`: of packets by the plain way. `refused`: as of a socket. */
  constructor(
    { open, capture }: { readonly open: OpenProbeSocket; readonly capture: OpenCapture },
    tos: number,
    arrived: Arrived,
    mark = 0,
    refused: (tag: number, name: string) => void = () => undefined
  ) {
    this.#open = open
    this.#capture = capture
    this.#tos = tos
    this.#mark = mark
    this.#arrived = arrived
    this.#refused = refused
  }

  /** Sees for some time what arrives on the device, whatever the firewall does with it. */
  capture(device: string, family: Family, now: number): void {
    const name = `${device} ${family}`
    if (this.#captures.has(name) || this.#captures.size >= MOST_CAPTURES) return
    try {
      const received: PacketReceived = (packet, ago, length) =>
        this.#arrived(packet, { family, ago, isCaptured: true, length })
      const socket = this.#capture({ family, device, magic: MAGIC, received })
      this.#captures.set(name, { socket, until: now + CAPTURED })
    } catch {
      // The device is gone, or the capability is missing: then what the firewall drops counts as lost.
    }
  }

  /** Ends captures whose time is over. */
  tidy(now: number): void {
    for (const [name, { socket, until }] of this.#captures) {
      if (now < until) continue
      socket[Symbol.dispose]()
      this.#captures.delete(name)
    }
  }

  /** The socket of this way from `source`; `undefined`: `reason` says why there is none. */
  get(way: Way, source: Ip, now: number): ProbeSocket | undefined {
    const name = nameOf(way, source.family)
    const held = this.#held.get(name)
    if (held !== undefined && sameIp(held.source, source)) return held.socket
    held?.socket[Symbol.dispose]()
    this.#held.delete(name)
    const failed = this.#failed.get(name)
    if (failed !== undefined && sameIp(failed.source, source) && now - failed.at < RETRY) return undefined
    try {
      const socket = this.#open(this.#optionsOf(way, source))
      this.#held.set(name, { socket, source })
      this.#failed.delete(name)
      return socket
    } catch (error) {
      this.#failed.set(name, { reason: whyNot(error, source), source, at: now })
      return undefined
    }
  }

  /** Why there is no socket for this way. */
  reason(way: Way, family: Family): string | undefined {
    return this.#failed.get(nameOf(way, family))?.reason
  }

  /** Reads what has arrived on all of them. */
  drain(): void {
    for (const { socket } of [...this.#held.values(), ...this.#captures.values()]) socket.drain()
  }

  /** Calls at least once when something has arrived on any of them. */
  watch(ready: () => void): void {
    for (const { socket } of this.#held.values()) socket.watch(ready)
  }

  /** Sends what waits in all of them. */
  flush(): void {
    for (const { socket } of this.#held.values()) socket.flush()
  }

  [Symbol.dispose](): void {
    for (const { socket } of [...this.#held.values(), ...this.#captures.values()]) socket[Symbol.dispose]()
    this.#held.clear()
    this.#captures.clear()
  }

  /** The answers to probes by the plain way arrive at the pods' address, where the socket of that way receives them. */
  #optionsOf(way: Way, source: Ip): Parameters<OpenProbeSocket>[0] {
    const { family } = source
    const common = { family, source: ipBytes(source), magic: MAGIC, refused: this.#refused }
    if (way === 'plain') return { ...common, tos: this.#tos }
    const mark = { at: AT_MARK, value: this.#mark }
    const received: PacketReceived = (packet, ago, length, from) =>
      this.#arrived(packet, { family, ago, isCaptured: false, length, source: from })
    return { ...common, mark, received }
  }
}

const nameOf = (way: Way, family: Family): string => `${way}${family}`

function whyNot(error: unknown, source: Ip): string {
  const errno = (error as { readonly errnoName?: string }).errnoName
  if (errno === 'EPERM' || errno === 'EACCES') return 'weftd may not open raw sockets (capability NET_RAW)'
  if (errno === 'EADDRNOTAVAIL') return `no device of this node has the address ${formatIp(source)}`
  return `no raw socket from ${formatIp(source)}: ${reasonOf(error)}`
}
