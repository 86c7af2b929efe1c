// The lease of this node as the daemon last held it, beside its socket: with it a weftd that starts while the store is away serves pods all the same.
import { statSync, utimesSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/replace-file.ts'
import { formatLeaseValue, type Lease, leaseKey, parseLease } from '../lease/lease.ts'

export type Remembered = {
  /** The network configuration as the store had it. */
  readonly text: string
  readonly lease: Lease
}

/** Milliseconds after which a lease that nobody renewed has ended, flannel's day, and between two marks that ours has not. */
const LIFE = 24 * 3_600_000
const MARK = 3_600_000

/** Where it is, below --state-dir. */
export const leaseFilePath = (stateDir: string): string => join(stateDir, 'lease.json')

export class LeaseFile {
  readonly path: string
  readonly #log: Log

  constructor(path: string, log: Log) {
    this.path = path
    this.#log = log
  }

  /** What was held less than a day ago; nothing when there is no such file, or (with a warning) when it can't be understood. `now`: milliseconds since 1970. */
  read(now = Date.now()): Remembered | undefined {
    try {
      const written = contentOf(this.path)
      if (written === undefined || now - statSync(this.path).mtimeMs > LIFE) return undefined
      const { configuration, key, value } = JSON.parse(written) as Record<string, unknown>
      return { text: String(configuration), lease: parseLease(String(key), String(value)) }
    } catch (error) {
      this.#log.warn({ path: this.path, reason: reasonOf(error) }, 'the remembered lease is of no use')
      return undefined
    }
  }

  /** Notes the lease for the next weftd, for root only. That it can't be written is logged: this weftd does not need it. */
  write({ text, lease }: Remembered): void {
    const written = { configuration: text, key: leaseKey(lease), value: formatLeaseValue(lease) }
    try {
      makeDirectory(dirname(this.path), 0o700)
      replaceFile(this.path, Buffer.from(`${JSON.stringify(written)}\n`), 0o600)
    } catch (error) {
      this.#log.warn({ path: this.path, reason: reasonOf(error) }, 'the lease can not be noted for the next weftd')
    }
  }

  /** From now on the file says every hour that the lease is still ours, while `isHeld` agrees. */
  keepFresh(isHeld: () => boolean, signal: AbortSignal): void {
    const timer = setInterval(() => isHeld() && this.mark(), MARK).unref()
    signal.addEventListener('abort', () => clearInterval(timer), { once: true })
  }

  /** The lease is ours at this time, in milliseconds since 1970. */
  mark(now = Date.now()): void {
    try {
      utimesSync(this.path, now / 1000, now / 1000)
    } catch (error) {
      this.#log.debug({ path: this.path, reason: reasonOf(error) }, 'there is no remembered lease to mark')
    }
  }
}
