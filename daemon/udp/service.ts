// Configuration of the proxy, and the forwarder that carries it out. While that can't run, as without the device or when
// another program has the port, reports why and tries again.
import { formatIp, ipBytes, parseIp, parsePrefix } from '../../ipam/address.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { CallFailed } from '../os/libc.ts'
import { noCounters } from './counters.ts'
import { Forwarder } from './forwarder.ts'
import type { Answer, Request, Socket, Status } from './protocol.ts'
import { PeerTable } from './table.ts'

/** Milliseconds between two attempts. */
const AGAIN = 100

export class Service implements Disposable {
  readonly #log: Log
  readonly #changed: (status: Status) => void
  readonly #table = new PeerTable()
  readonly #peers = new Map<string, string>()
  readonly #counters = noCounters()
  readonly #lacks = new Set<string>()
  #socket: Socket | undefined
  #forwarder: Forwarder | undefined
  #fault: string | undefined
  #retry: NodeJS.Timeout | undefined

  constructor(log: Log, changed: (status: Status) => void) {
    this.#log = log
    this.#changed = changed
  }

  get socket(): Socket | undefined {
    return this.#socket
  }

  get peers(): ReadonlyMap<string, string> {
    return this.#peers
  }

  get status(): Status {
    return {
      carries: this.#forwarder !== undefined,
      ...(this.#fault !== undefined && { fault: this.#fault }),
      lacks: [...this.#lacks]
    }
  }

  apply({ socket, put, remove = [], counters }: Request): Answer {
    for (const subnet of remove) this.#remove(subnet)
    for (const [subnet, to] of put ?? []) this.#put(subnet, to)
    // It may have to take a device that was made anew.
    if (socket !== undefined) this.#use(socket ?? undefined)
    return counters ? { counters: this.#counters } : {}
  }

  [Symbol.dispose](): void {
    this.#stop()
  }

  #put(subnet: string, to: string): void {
    const [prefix, address] = [parsePrefix(subnet), parseIp(to)]
    if (prefix === undefined || address === undefined) return
    this.#peers.set(subnet, to)
    this.#table.set({ network: Number(prefix.ip.value), length: prefix.length, to: Number(address.value) })
  }

  #remove(subnet: string): void {
    const prefix = parsePrefix(subnet)
    if (prefix === undefined || !this.#peers.delete(subnet)) return
    this.#table.delete(Number(prefix.ip.value), prefix.length)
  }

  #use(socket: Socket | undefined): void {
    const isSame =
      JSON.stringify(socket && socketKey(socket)) === JSON.stringify(this.#socket && socketKey(this.#socket))
    this.#socket = socket
    if (isSame && this.#forwarder !== undefined) return
    this.#stop()
    this.#begin()
  }

  #stop(): void {
    clearTimeout(this.#retry)
    this.#forwarder?.[Symbol.dispose]()
    this.#forwarder = undefined
  }

  #begin(): void {
    const { device, local, port } = this.#socket ?? {}
    if (device === undefined || local === undefined || port === undefined) {
      this.#report(undefined)
      return
    }
    try {
      this.#lacks.clear()
      this.#forwarder = new Forwarder({
        ...{ device, local: ipBytes(local), port, table: this.#table, counters: this.#counters },
        lacks: (what) => this.#lacksOffload(what),
        ended: (error) => this.#ended(error)
      })
      this.#log.info({ device, local: formatIp(local), port, lacks: [...this.#lacks] }, 'carrying packets of pods')
      this.#report(undefined)
    } catch (error) {
      this.#tryAgain(faultOf(error, { device, local, port }))
    }
  }

  #ended(error: unknown): void {
    this.#forwarder = undefined
    this.#tryAgain(`the device ended: ${reasonOf(error)}`)
  }

  #tryAgain(fault: string): void {
    if (fault !== this.#fault) this.#log.warn({ fault }, 'packets of pods are not carried; trying again')
    this.#report(fault)
    this.#retry = setTimeout(() => this.#begin(), AGAIN)
  }

  #lacksOffload(what: string): void {
    this.#lacks.add(what)
    if (this.#forwarder === undefined) return
    this.#log.warn({ what }, 'the kernel lacks an offload; packets are carried one by one')
    this.#changed(this.status)
  }

  /** Always announced when it carries again: weftd may have heard otherwise. */
  #report(fault: string | undefined): void {
    if (fault !== undefined && fault === this.#fault) return
    this.#fault = fault
    this.#changed(this.status)
  }
}

const socketKey = ({ device, local, port }: Socket) => [device, formatIp(local), port]

function faultOf(error: unknown, { device, local, port }: Socket): string {
  if (!(error instanceof CallFailed)) return reasonOf(error)
  switch (error.errnoName) {
    case 'EADDRINUSE':
      return `another program uses UDP port ${port} of ${formatIp(local)}`
    case 'EADDRNOTAVAIL':
      return `this host does not have the address ${formatIp(local)}`
    case 'EBUSY':
      return `another process has the device ${device} open`
    case 'ENODEV':
      return `there is no device ${device}`
    default:
      return error.message
  }
}
