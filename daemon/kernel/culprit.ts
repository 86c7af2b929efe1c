// Who changed the kernel's tables: the port id in a notification is, for ordinary programs, the process id of the sender.
import { readFileSync } from 'node:fs'
import type { Culprit } from '../state/kernel.ts'

/** A pid can be given to another process; in this time it is not. */
const TRUSTED_MS = 1_000
const REMEMBERED = 256

export class Culprits {
  /** Port ids of our own sockets, whichever file opened them. */
  readonly own = new Set<number>()
  readonly #names = new Map<number, { readonly name: string | undefined; readonly at: number }>()

  /**
   * Must be called at once: a short-lived program is gone a millisecond later. Port id 0 is the kernel itself; `undefined` also when no process has that id
   * (a program's second socket gets a made-up port id, and one in another pid namespace shows ids that mean nothing here).
   */
  of(port: number, at: number): Culprit | undefined {
    if (port === 0) return undefined
    if (port === process.pid || this.own.has(port)) return { self: true, pid: process.pid, name: 'weftd' }
    const name = this.#name(port, at)
    return name === undefined ? undefined : { self: false, pid: port, name }
  }

  #name(pid: number, at: number): string | undefined {
    const known = this.#names.get(pid)
    if (known !== undefined && at - known.at < TRUSTED_MS) return known.name
    const name = readName(pid)
    if (this.#names.size >= REMEMBERED) this.#names.clear()
    this.#names.set(pid, { name, at })
    return name
  }
}

function readName(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return undefined
  }
}
