// The last lease of this node, in the state directory: with it a weftd that starts while the store is unreachable can
// serve pods.
import { statSync, utimesSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { LARGE_FILE } from '../../ipam/read-file.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/replace-file.ts'
import type { LastConfiguration } from '../config/last.ts'
import { formatLeaseValue, type Lease, leaseKey, parseLease } from '../lease/lease.ts'

export type Remembered = {
  /** The network configuration as the store had it. */
  readonly text: string
  readonly lease: Lease
  /** The configurations that some nodes still used, the latest first. */
  readonly earlier?: readonly { readonly text: string; readonly since: number }[]
}

/** Milliseconds after which a lease that is not renewed expires: flannel's day. */
const LIFE = 24 * 3_600_000
/** Milliseconds between two updates of the file's time while the lease is still ours. */
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

  /**
   * The lease if it was ours less than a day ago; `undefined` without a file, or (with a warning) with an invalid one.
   * `now`: milliseconds since 1970.
   */
  read(now = Date.now()): Remembered | undefined {
    try {
      const written = contentOf(this.path, LARGE_FILE)
      if (written === undefined || now - statSync(this.path).mtimeMs > LIFE) return undefined
      const { configuration, key, value, earlier } = JSON.parse(written) as Record<string, unknown>
      const before = earlierIn(earlier)
      const lease = parseLease(String(key), String(value))
      return { text: String(configuration), lease, ...(before.length > 0 && { earlier: before }) }
    } catch (error) {
      this.#log.warn({ path: this.path, reason: reasonOf(error) }, 'the remembered lease is invalid')
      return undefined
    }
  }

  /** The configuration in it, however old, for messages. */
  lastConfiguration(): LastConfiguration | undefined {
    try {
      const { configuration } = JSON.parse(contentOf(this.path, LARGE_FILE) ?? '{}') as Record<string, unknown>
      return typeof configuration === 'string' ? { text: configuration, path: this.path } : undefined
    } catch {
      return undefined
    }
  }

  /**
   * Writes the lease for the next weftd, readable by root only. An error is only logged: this weftd does not need the
   * file.
   */
  write({ text, lease, earlier = [] }: Remembered): void {
    const before = earlier.map(({ text: configuration, since }) => ({ configuration, since }))
    const written = {
      ...{ configuration: text, key: leaseKey(lease), value: formatLeaseValue(lease) },
      ...(before.length > 0 && { earlier: before })
    }
    try {
      makeDirectory(dirname(this.path), 0o700)
      replaceFile(this.path, Buffer.from(`${JSON.stringify(written)}\n`), 0o600)
    } catch (error) {
      this.#log.warn({ path: this.path, reason: reasonOf(error) }, "can't write the lease for the next weftd")
    }
  }

  /** Updates the file's time every hour, while `isHeld` returns true. */
  keepFresh(isHeld: () => boolean, signal: AbortSignal): void {
    const timer = setInterval(() => isHeld() && this.mark(), MARK).unref()
    signal.addEventListener('abort', () => clearInterval(timer), { once: true })
  }

  /** Sets the time at which the lease was ours, in milliseconds since 1970. */
  mark(now = Date.now()): void {
    try {
      utimesSync(this.path, now / 1000, now / 1000)
    } catch (error) {
      this.#log.debug({ path: this.path, reason: reasonOf(error) }, "can't update the time of the lease file")
    }
  }
}

function earlierIn(written: unknown): NonNullable<Remembered['earlier']> {
  if (!Array.isArray(written)) return []
  return written.flatMap((each: unknown) => {
    const { configuration, since } = (each ?? {}) as Record<string, unknown>
    return typeof configuration === 'string' && typeof since === 'number' ? [{ text: configuration, since }] : []
  })
}
