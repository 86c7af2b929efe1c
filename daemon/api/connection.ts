// One connection to the daemon's socket: a line in, an answer out, each with a deadline.
import { close, receiveNow } from '../os/libc.ts'
import { inOwnTurns, whileReadable, whileWritable } from '../os/readable.ts'
import { endSending, sendSome } from '../os/unix-socket.ts'

/** Receives in one turn of the event loop; no queue of a unix socket has more than these read. */
const MOST_A_TURN = 64
const RECEIVE_BYTES = 64 << 10

export type Line =
  /** Without its end. */
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'too long' }
  /** The caller left, or was too slow. */
  | { readonly kind: 'none' }

export class Connection {
  /** Shared by all: each receive is read to its end, and copied if need be, before anything else runs. */
  static readonly #received = Buffer.allocUnsafeSlow(RECEIVE_BYTES)
  readonly #fd: number
  readonly #onclose: () => void
  readonly #chunks: Buffer[] = []
  #length = 0
  #isTooLong = false
  #answering = false
  #closed = false
  #poll: Disposable | undefined
  #timer: NodeJS.Timeout | undefined

  /** `fd`: a non-blocking stream socket, which this closes. */
  constructor(fd: number, closed: () => void) {
    this.#fd = fd
    this.#onclose = closed
  }

  /** The first line, of at most `longest` octets, if all of it arrives within `milliseconds`. */
  line(longest: number, milliseconds: number): Promise<Line> {
    const { promise, resolve } = Promise.withResolvers<Line>()
    const settle = (line: Line) => {
      this.#stopWaiting()
      resolve(line)
    }
    const step = () => {
      const line = this.#read(longest)
      if (line !== undefined) settle(line)
      return line !== undefined
    }
    if (!step()) this.#wait(whileReadable, step, milliseconds, () => settle({ kind: 'none' }))
    return promise
  }

  /** Sends the answer and closes, at the latest after `milliseconds`. */
  end(answer: string, milliseconds: number): void {
    if (this.#closed) return
    this.#answering = true
    let left = Buffer.from(answer)
    const step = () => {
      try {
        left = left.subarray(sendSome(this.#fd, left) ?? 0)
        if (left.length === 0) this.#finish(milliseconds)
      } catch {
        // The caller has disconnected.
        this.close()
      }
      return left.length === 0 || this.#closed
    }
    if (!step()) this.#wait(whileWritable, step, milliseconds, () => this.close())
  }

  /** Closes at once, or when the answer has been sent, at the latest after `milliseconds`. */
  closeSoon(milliseconds: number): void {
    if (!this.#answering) this.close()
    else setTimeout(() => this.close(), milliseconds).unref()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopWaiting()
    close(this.#fd)
    this.#onclose()
  }

  /** `undefined`: more is to come. */
  #read(longest: number): Line | undefined {
    const length = this.#receive()
    if (length === undefined) return undefined
    if (length === 0) return { kind: 'none' }
    const received = Connection.#received.subarray(0, length)
    const end = received.indexOf(10)
    const part = end < 0 ? received : received.subarray(0, end)
    this.#length += part.length
    this.#isTooLong = this.#length > longest
    if (this.#isTooLong) {
      this.#chunks.length = 0
      return { kind: 'too long' }
    }
    if (end < 0) {
      this.#chunks.push(Buffer.from(part))
      return undefined
    }
    const all = this.#chunks.length === 0 ? part : Buffer.concat([...this.#chunks, part])
    return { kind: 'line', text: all.toString() }
  }

  /** 0: nothing more comes. */
  #receive(): number | undefined {
    try {
      return receiveNow(this.#fd, Connection.#received)
    } catch {
      return 0
    }
  }

  /** If the connection were closed while the caller is still sending, it would lose the answer. */
  #finish(milliseconds: number): void {
    this.#stopWaiting()
    if (!this.#isTooLong) {
      this.close()
      return
    }
    endSending(this.#fd)
    const drain = () => {
      // All of it, since libuv reports only once a caller that left with the answer unread (POLLERR).
      for (let count = 0; count < MOST_A_TURN; count++) {
        const length = this.#receive()
        if (length === undefined) return
        if (length === 0) return this.close()
      }
    }
    this.#wait(whileReadable, drain, milliseconds, () => this.close())
  }

  #wait(poll: typeof whileReadable, step: () => void, milliseconds: number, late: () => void): void {
    this.#poll = inOwnTurns(poll, this.#fd, step)
    this.#timer = setTimeout(late, milliseconds)
  }

  #stopWaiting(): void {
    clearTimeout(this.#timer)
    this.#poll?.[Symbol.dispose]()
    this.#poll = undefined
  }
}
