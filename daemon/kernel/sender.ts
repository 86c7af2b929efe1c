// Who changed the kernel's tables: the port id in a notification is, for ordinary programs, the process id of the sender.

import { type Process, processOf } from '../os/process.ts'
import type { Sender } from '../state/kernel.ts'

/** A pid can be given to another process; in this time it is not. */
const TRUSTED_MS = 1_000
const REMEMBERED = 256

export class Senders {
  /** Port ids of our own sockets, whichever file opened them. */
  readonly own = new Set<number>()
  readonly #known = new Map<number, { readonly sender: Process | undefined; readonly at: number }>()

  /**
   * Must be called at once: a short-lived program is gone a millisecond later. Port id 0 is the kernel itself; `undefined` also when no process has that id
   * (a program's second socket gets a made-up port id, and one in another pid namespace shows ids that mean nothing here: a thread of ours, say, though
   * all our sockets are in `own`).
   */
  of(port: number, at: number): Sender | undefined {
    if (port === 0) return undefined
    if (port === process.pid || this.own.has(port)) return { self: true, pid: process.pid, name: 'weftd' }
    const sender = this.#sender(port, at)
    return sender === undefined || sender.pid === process.pid
      ? undefined
      : { self: false, pid: sender.pid, name: sender.name }
  }

  #sender(port: number, at: number): Process | undefined {
    const known = this.#known.get(port)
    if (known !== undefined && at - known.at < TRUSTED_MS) return known.sender
    const sender = processOf(port)
    if (this.#known.size >= REMEMBERED) this.#known.clear()
    this.#known.set(port, { sender, at })
    return sender
  }
}
