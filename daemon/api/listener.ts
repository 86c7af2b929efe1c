// Listens on a unix socket and hands out its connections.
//
// Why not node:net: it makes a stream, its buffers and its events for every connection, 0.15 to 0.18 ms of processor a
// call; docs/performance.md has what a burst of calls loses with it.
import { unlinkSync } from 'node:fs'
import { toError } from '../base/error.ts'
import { close } from '../os/libc.ts'
import { inOwnTurns, whileReadable } from '../os/readable.ts'
import { acceptNow, unixListener } from '../os/unix-socket.ts'

/** Connections accepted in one turn of the event loop, so that a flood leaves room for other work. */
const MOST_A_TURN = 64
/** Milliseconds without accepting after accept(2) failed, most likely at the limit of descriptors. */
const PAUSE = 100

export type ListenerEvents = {
  /** A new connection's descriptor. */
  readonly connection: (fd: number) => void
  /** accept(2) failed; it is retried. Called once until it succeeds. */
  readonly failed: (error: Error) => void
}

export class Listener implements Disposable {
  readonly #path: string
  readonly #fd: number
  readonly #events: ListenerEvents
  #poll: Disposable | undefined
  #pause: NodeJS.Timeout | undefined
  #isFailing = false
  #closed = false

  /** Errors: CallFailed, with EADDRINUSE for a file that exists. */
  constructor(path: string, backlog: number, events: ListenerEvents) {
    this.#path = path
    this.#fd = unixListener(path, backlog)
    this.#events = events
    this.#listen()
  }

  #listen(): void {
    this.#poll = inOwnTurns(whileReadable, this.#fd, () => this.#accept())
  }

  #accept(): void {
    try {
      for (let count = 0; count < MOST_A_TURN; count++) {
        const fd = acceptNow(this.#fd)
        if (fd === undefined) return
        this.#isFailing = false
        this.#events.connection(fd)
      }
    } catch (error) {
      this.#poll?.[Symbol.dispose]()
      this.#pause = setTimeout(() => this.#listen(), PAUSE)
      if (!this.#isFailing) this.#events.failed(toError(error))
      this.#isFailing = true
    }
  }

  /** Removes the file too, so that callers see at once that no daemon is there. Open connections continue. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#pause)
    this.#poll?.[Symbol.dispose]()
    try {
      // Before the descriptor is closed: nobody takes the file for a dead daemon's and replaces it meanwhile.
      unlinkSync(this.#path)
    } catch {
      // Somebody else removed it.
    }
    close(this.#fd)
  }
}
