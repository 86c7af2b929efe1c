// Finds the process behind a notification: its netlink port id is, for ordinary programs, the process id of the sender.
import { type Process, processOf } from '../os/process.ts'
import type { Sender } from '../state/kernel.ts'

/** Milliseconds in which a pid is not reused by another process. */
const TRUSTED_MS = 1_000
const REMEMBERED = 256

export class Senders {
  /** Port ids of this process's own sockets. */
  readonly own = new Set<number>()
  readonly #known = new Map<number, { readonly sender: Process | undefined; readonly at: number }>()

  /**
   * Call it when the notification arrives: a short-lived program is gone a millisecond later. Port id 0 is the kernel
   * itself. `undefined` also when no process has that id: a program's second socket gets a generated port id, and the
   * ids of another pid namespace mean nothing here (one may be that of a thread of weftd, whose sockets are all in
   * `own`).
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
