// One connection to the daemon's socket: a line in, an answer out, each with a deadline.
import type { Socket } from 'node:net'

export type Line =
  /** Without its end. */
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'too long' }
  /** The caller left, or was too slow. */
  | { readonly kind: 'none' }

export class Connection {
  readonly #socket: Socket
  #isTooLong = false
  #answering = false

  /** `socket` must allow half-open connections: a caller may shut down its side once its line is sent. */
  constructor(socket: Socket, closed: () => void) {
    this.#socket = socket
    socket.once('close', closed)
    // Callers may leave at any time; `close` follows.
    socket.on('error', () => undefined)
  }

  /** The first line, of at most `longest` octets, if all of it arrives within `milliseconds`. */
  line(longest: number, milliseconds: number): Promise<Line> {
    const { promise, resolve } = Promise.withResolvers<Line>()
    const socket = this.#socket
    const chunks: Buffer[] = []
    let length = 0
    const settle = (line: Line) => {
      clearTimeout(timer)
      socket.off('data', take).off('end', none).off('close', none).pause()
      resolve(line)
    }
    const none = () => settle({ kind: 'none' })
    const take = (chunk: Buffer) => {
      const end = chunk.indexOf(10)
      const part = end < 0 ? chunk : chunk.subarray(0, end)
      length += part.length
      this.#isTooLong = length > longest
      chunks.push(part)
      if (this.#isTooLong) settle({ kind: 'too long' })
      else if (end >= 0) settle({ kind: 'line', text: (chunks.length === 1 ? part : Buffer.concat(chunks)).toString() })
    }
    const timer = setTimeout(none, milliseconds)
    socket.on('data', take).on('end', none).on('close', none)
    return promise
  }

  /** Sends the answer and closes, at the latest after `milliseconds`. */
  end(answer: string, milliseconds: number): void {
    const socket = this.#socket
    if (socket.destroyed) return
    this.#answering = true
    const timer = setTimeout(() => socket.destroy(), milliseconds)
    socket.once('close', () => clearTimeout(timer))
    // If the connection were closed while the caller is still sending, it would lose the answer.
    if (this.#isTooLong) socket.resume().end(answer)
    else socket.write(answer, () => socket.destroy())
  }

  /** Closes at once, or when the answer has been sent, at the latest after `milliseconds`. */
  closeSoon(milliseconds: number): void {
    if (!this.#answering) this.close()
    else setTimeout(() => this.close(), milliseconds).unref()
  }

  close(): void {
    this.#socket.destroy()
  }
}
