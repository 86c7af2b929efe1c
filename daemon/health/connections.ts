// Limits the connections of the HTTP server, so that nobody who holds sockets open keeps a probe out: the kubelet takes
// a probe without an answer for the end of weftd.
import type { Socket } from 'node:net'

/** Open connections in all, and of one address: Prometheus and the kubelet need one or two each. */
const MOST = 64
const MOST_OF_ADDRESS = 16
/**
 * Milliseconds: from the connection to its first request; for taking an answer; between an answer and the next request.
 */
const DEADLINES = { first: 2_000, answer: 10_000, next: 5_000 } as const

type Connection = { readonly address: string; isBusy: boolean; deadline: NodeJS.Timeout }

export type Deadlines = { readonly [Phase in keyof typeof DEADLINES]: number }

/**
 * Each connection has a deadline at any time. For one too many, another is closed that has no request to be answered:
 * the oldest of the address that has most. A client that sends its request at once is therefore always answered.
 */
export class Connections {
  readonly #deadlines: Deadlines
  /** In the order of their last answer, the oldest first. */
  readonly #open = new Map<Socket, Connection>()

  /** `deadlines` differ in tests only. */
  constructor(deadlines: Deadlines = DEADLINES) {
    this.#deadlines = deadlines
  }

  accept(socket: Socket): void {
    const address = socket.remoteAddress ?? ''
    this.#open.set(socket, { address, isBusy: false, deadline: this.#closeAfter(socket, this.#deadlines.first) })
    socket.once('close', () => {
      clearTimeout(this.#open.get(socket)?.deadline)
      this.#open.delete(socket)
    })
    const counts = this.#counts()
    if ((counts.get(address) ?? 0) > MOST_OF_ADDRESS) this.#closeOneOf(address, socket)
    else if (this.#open.size > MOST) this.#closeOneOf(mostIn(counts), socket)
  }

  /** A request is being answered. */
  begin(socket: Socket): void {
    this.#enter(socket, true, this.#deadlines.answer)
  }

  /** The answer has been sent. */
  end(socket: Socket): void {
    this.#enter(socket, false, this.#deadlines.next)
  }

  #enter(socket: Socket, isBusy: boolean, milliseconds: number): void {
    const connection = this.#open.get(socket)
    if (connection === undefined) return
    clearTimeout(connection.deadline)
    this.#open.delete(socket)
    this.#open.set(socket, { ...connection, isBusy, deadline: this.#closeAfter(socket, milliseconds) })
  }

  #closeAfter(socket: Socket, milliseconds: number): NodeJS.Timeout {
    return setTimeout(() => socket.destroy(), milliseconds).unref()
  }

  #counts(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const { address } of this.#open.values()) counts.set(address, (counts.get(address) ?? 0) + 1)
    return counts
  }

  /** Where all are being answered, the new one. */
  #closeOneOf(address: string, added: Socket): void {
    for (const [socket, connection] of this.#open)
      if (connection.address === address && !connection.isBusy && socket !== added) return void socket.destroy()
    added.destroy()
  }
}

function mostIn(counts: ReadonlyMap<string, number>): string {
  const [first] = [...counts].sort(([, a], [, b]) => b - a)
  return first?.[0] ?? ''
}
