// The sockets that probes leave by and arrive on: one for each way and family, opened anew when this node's address
// changes, and the reason while one can't be opened.
import { type Family, formatIp, type Ip, ipBytes, sameIp } from '../../ipam/address.ts'
import { reasonOf } from '../base/error.ts'
import { AT_MARK, MAGIC, type Way } from './probe-packet.ts'

export interface ProbeSocket extends Disposable {
  /** Never waits. The name of the error when the kernel does not send it. */
  send(to: Uint8Array, message: Uint8Array): string | undefined
  /** Reads what has arrived. */
  drain(): void
}

/**
 * `ago`: milliseconds since it arrived, where that matters: the event loop may be late. `isCaptured`: seen before the
 * firewall.
 */
export type Arrival = { readonly family: Family; readonly ago: number; readonly isCaptured: boolean }
type ReceivedProbe = (packet: Uint8Array, arrival: Arrival) => void

/** Opens a raw socket (os/raw-socket.ts). Errors: with `errnoName` where the kernel refuses. */
export type OpenProbeSocket = (options: {
  readonly family: Family
  readonly source: Uint8Array
  readonly magic: string
  readonly mark?: { readonly at: number; readonly value: number }
  readonly tos?: number
  readonly received?: (packet: Uint8Array, ago: number) => void
}) => ProbeSocket

/** Opens a packet socket (os/raw-socket.ts), which sees what the firewall drops. Errors: as above. */
export type OpenCapture = (options: {
  readonly family: Family
  readonly device: string
  readonly magic: string
  readonly received: (packet: Uint8Array, ago: number) => void
}) => Omit<ProbeSocket, 'send'>

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
  readonly #received: ReceivedProbe
  readonly #tos: number
  readonly #mark: number
  readonly #held = new Map<string, Held>()
  readonly #failed = new Map<string, Failed>()
  readonly #captures = new Map<string, { readonly socket: Omit<ProbeSocket, 'send'>; readonly until: number }>()
  readonly #capture: OpenCapture

  /** `mark`: of probes of this process. `tos`: of packets by the plain way. */
  constructor(
    { open, capture }: { readonly open: OpenProbeSocket; readonly capture: OpenCapture },
    tos: number,
    received: ReceivedProbe,
    mark = 0
  ) {
    this.#open = open
    this.#capture = capture
    this.#tos = tos
    this.#mark = mark
    this.#received = received
  }

  /** Sees for some time what arrives on the device, whatever the firewall does with it. */
  capture(device: string, family: Family, now: number): void {
    const name = `${device} ${family}`
    if (this.#captures.has(name) || this.#captures.size >= MOST_CAPTURES) return
    try {
      const received = (packet: Uint8Array, ago: number) => this.#received(packet, { family, ago, isCaptured: true })
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

  [Symbol.dispose](): void {
    for (const { socket } of [...this.#held.values(), ...this.#captures.values()]) socket[Symbol.dispose]()
    this.#held.clear()
    this.#captures.clear()
  }

  /** The answers to probes by the plain way arrive at the pods' address, where the socket of that way receives them. */
  #optionsOf(way: Way, source: Ip): Parameters<OpenProbeSocket>[0] {
    const common = { family: source.family, source: ipBytes(source), magic: MAGIC }
    if (way === 'plain') return { ...common, tos: this.#tos }
    const mark = { at: AT_MARK, value: this.#mark }
    const { family } = source
    return { ...common, mark, received: (packet, ago) => this.#received(packet, { family, ago, isCaptured: false }) }
  }
}

const nameOf = (way: Way, family: Family): string => `${way}${family}`

function whyNot(error: unknown, source: Ip): string {
  const errno = (error as { readonly errnoName?: string }).errnoName
  if (errno === 'EPERM' || errno === 'EACCES') return 'weftd may not open raw sockets (capability NET_RAW)'
  if (errno === 'EADDRNOTAVAIL') return `no device of this node has the address ${formatIp(source)}`
  return `no raw socket from ${formatIp(source)}: ${reasonOf(error)}`
}
