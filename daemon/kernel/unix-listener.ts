// A listening unix socket for short conversations: one line in, one answer out.
//
// Why not node:net: it makes a stream, its buffers and its events for every connection. From connect(2) to the answer an idle daemon took 0.74 ms with it and
// takes 0.49 without; a busy one 0.29 ms of processor a call and 0.11 (medians, a server that only parses the line; Node 26, two processors).
import { unlinkSync } from 'node:fs'
import koffi from 'koffi'
import * as libc from '../os/libc.ts'

/** Connections taken in one turn of the event loop, so that a flood leaves room for what else is to be done. */
const TOGETHER = 64
/** Milliseconds without accepting after accept(2) failed: the limit of descriptors is met, most likely, and waits are all that helps. */
const PAUSE = 100

/** For receives that end before anything else runs; what is kept is copied. */
const scratch = Buffer.allocUnsafeSlow(64 << 10)

export type ListenerEvents = {
  readonly connection: (connection: Connection) => void
  /** accept(2) failed; it is tried again. Told once until it succeeds. */
  readonly failed: (error: Error) => void
}

export class UnixListener implements Disposable {
  readonly #path: string
  readonly #fd: number
  readonly #events: ListenerEvents
  #ready: Readiness | undefined
  #pause: NodeJS.Timeout | undefined
  #isFailing = false
  #closed = false

  /** Errors: CallFailed. */
  constructor(path: string, backlog: number, events: ListenerEvents) {
    this.#path = path
    this.#fd = libc.unixListener(path, backlog)
    this.#events = events
    this.#listen()
  }

  #listen(): void {
    this.#ready = new Readiness(this.#fd, 'readable', () => this.#accept())
  }

  #accept(): void {
    try {
      for (let count = 0; count < TOGETHER; count++) {
        const fd = libc.acceptNow(this.#fd)
        if (fd === undefined) return
        this.#isFailing = false
        this.#events.connection(new Connection(fd))
      }
    } catch (error) {
      this.#ready?.[Symbol.dispose]()
      this.#pause = setTimeout(() => this.#listen(), PAUSE)
      if (!this.#isFailing) this.#events.failed(error instanceof Error ? error : new Error(String(error)))
      this.#isFailing = true
    }
  }

  /** Takes the file away too, so that callers learn at once that nobody is there. Connections go on. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#pause)
    this.#ready?.[Symbol.dispose]()
    try {
      // While nobody can take the file for a dead daemon's and put his own there.
      unlinkSync(this.#path)
    } catch {
      // Somebody has been faster.
    }
    libc.close(this.#fd)
  }
}

export type Line =
  /** Without its end. */
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'too long' }
  /** The caller left, or was too slow. */
  | { readonly kind: 'none' }

export class Connection {
  readonly #fd: number
  #chunks: Buffer[] = []
  #length = 0
  #isFlooded = false
  #ready: Readiness | undefined
  #late: NodeJS.Timeout | undefined
  #closed = false
  #answering = false
  /** Called once, when it is closed. */
  onclose: (() => void) | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  /** The first line, of at most `longest` octets, if it comes within `milliseconds`: a byte now and then does not keep the descriptor for ever. */
  line(longest: number, milliseconds: number): Promise<Line> {
    const { promise, resolve } = Promise.withResolvers<Line>()
    const settle = (line: Line) => {
      this.#rest()
      resolve(line)
    }
    const step = () => {
      const line = this.#read(longest)
      if (line !== undefined) settle(line)
      return line !== undefined
    }
    if (!step()) this.#wait('readable', step, milliseconds, () => settle({ kind: 'none' }))
    return promise
  }

  /** Sends the answer and closes, at the latest after `milliseconds`. */
  end(answer: string, milliseconds: number): void {
    if (this.#closed) return
    this.#answering = true
    let left = Buffer.from(answer)
    const step = () => {
      try {
        left = left.subarray(libc.sendSome(this.#fd, left) ?? 0)
        if (left.length === 0) this.#hangUp(milliseconds)
      } catch {
        // Who went away needs no answer.
        this.close()
      }
      return left.length === 0 || this.#closed
    }
    if (!step()) this.#wait('writable', step, milliseconds, () => this.close())
  }

  /** Closes at once, or when the answer is out. */
  closeSoon(): void {
    if (!this.#answering) this.close()
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#rest()
    libc.close(this.#fd)
    this.onclose?.()
  }

  /** `undefined`: there is more to come. */
  #read(longest: number): Line | undefined {
    const length = this.#receive()
    if (length === undefined) return undefined
    if (length === 0) return { kind: 'none' }
    const received = scratch.subarray(0, length)
    const end = received.indexOf(10)
    const part = end < 0 ? received : received.subarray(0, end)
    this.#length += part.length
    this.#isFlooded = this.#length > longest
    if (this.#isFlooded) return { kind: 'too long' }
    if (end >= 0)
      return {
        kind: 'line',
        text: (this.#chunks.length === 0 ? part : Buffer.concat([...this.#chunks, part])).toString()
      }
    this.#chunks.push(Buffer.from(part))
    return undefined
  }

  /** 0: nothing more comes. */
  #receive(): number | undefined {
    try {
      return libc.receiveNow(this.#fd, scratch)
    } catch {
      return 0
    }
  }

  /** A caller that is still sending would lose the answer were the connection closed before it has read it. */
  #hangUp(milliseconds: number): void {
    this.#rest()
    if (!this.#isFlooded) {
      this.close()
      return
    }
    libc.endSending(this.#fd)
    const drain = () => {
      // All of it, since libuv tells only once of a caller that left with the answer unread (POLLERR). No queue holds more.
      for (let count = 0; count < TOGETHER; count++) {
        const length = this.#receive()
        if (length === undefined) return
        if (length === 0) return this.close()
      }
    }
    this.#wait('readable', drain, milliseconds, () => this.close())
  }

  #wait(what: 'readable' | 'writable', step: () => void, milliseconds: number, late: () => void): void {
    this.#ready = new Readiness(this.#fd, what, step)
    this.#late = setTimeout(late, milliseconds)
  }

  #rest(): void {
    clearTimeout(this.#late)
    this.#ready?.[Symbol.dispose]()
    this.#ready = undefined
  }
}

/** Calls back, each time in a turn of the event loop of its own, while a descriptor is ready, until disposed, which must be before the descriptor is closed. */
class Readiness implements Disposable {
  readonly #poll: ReturnType<typeof koffi.node.poll>
  #over = false

  constructor(fd: number, what: 'readable' | 'writable', ready: () => void) {
    // Promises that a callback of koffi's settles wait for the next turn anyhow.
    this.#poll = koffi.node.poll(fd, { [what]: true }, () => setImmediate(() => this.#over || ready()))
  }

  [Symbol.dispose](): void {
    if (this.#over) return
    this.#over = true
    this.#poll.stop()
    this.#poll.close()
  }
}
