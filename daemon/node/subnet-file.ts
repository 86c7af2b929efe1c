// subnet.env: read as an earlier daemon (weftd or flanneld) left it, and replaced atomically for Docker and others that
// read it.
import { statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { retry } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { removeFile, replaceFile } from '../base/replace-file.ts'
import { parseSubnetEnv, printSubnetEnv, type SubnetEnv } from '../config/subnet-env.ts'
import type { Health } from '../health/health.ts'

/** The subnets of an earlier run; none without a file, and none (with a warning) with an invalid one. */
export function previousSubnets(path: string, log: Log): PerFamily<Prefix> {
  let text: string | undefined
  try {
    text = contentOf(path)
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, "can't read the previous subnet.env")
  }
  if (text === undefined) return {}
  try {
    return parseSubnetEnv(text, path).subnet
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, 'the previous subnet.env is invalid and will be replaced')
    return {}
  }
}

/**
 * Below --state-dir: identifies the file that we wrote last, so that one written by flanneld since is recognised even
 * with the same content.
 */
const markPath = (stateDir: string): string => join(stateDir, 'subnet-file.json')

/** `undefined` when there is no file. Errors: those of stat(2). */
function identityOf(path: string): string | undefined {
  const about = statSync(path, { bigint: true, throwIfNoEntry: false })
  return about && JSON.stringify({ path, inode: String(about.ino), modifiedNs: String(about.mtimeNs) })
}

/**
 * Removes subnet.env if a weftd with this state directory wrote it last. False when it is another program's, which is
 * kept. Errors: those of unlink(2).
 */
export function removeSubnetFile(path: string, stateDir: string): boolean {
  const mark = contentOf(markPath(stateDir))
  const found = identityOf(path)
  const isOurs = found === undefined || found === mark
  if (isOurs) removeFile(path)
  removeFile(markPath(stateDir))
  return isOurs
}

export type SubnetFileDeps = {
  readonly path: string
  readonly stateDir: string
  readonly health: Pick<Health, 'raise' | 'clear'>
  /** Ends the attempts. */
  readonly signal: AbortSignal
}

export class SubnetFile {
  readonly #path: string
  readonly #stateDir: string
  readonly #health: Pick<Health, 'raise' | 'clear'>
  readonly #signal: AbortSignal
  /** Ends the attempts to write outdated content. */
  #attempts = new AbortController()

  constructor({ path, stateDir, health, signal }: SubnetFileDeps) {
    this.#path = path
    this.#stateDir = stateDir
    this.#health = health
    this.#signal = signal
  }

  /** Writes the file atomically. While that fails a condition is raised and it is retried in the background. */
  write(env: SubnetEnv): void {
    const text = printSubnetEnv(env)
    this.#attempts.abort()
    this.#attempts = new AbortController()
    void this.#untilWritten(text, AbortSignal.any([this.#signal, this.#attempts.signal]))
  }

  async #untilWritten(text: string, signal: AbortSignal): Promise<void> {
    try {
      // The first attempt is made before this returns.
      await retry(() => this.#wrote(text) || undefined, { signal })
    } catch (error) {
      if (!signal.aborted) throw error
    }
  }

  #wrote(text: string): boolean {
    try {
      makeDirectory(dirname(this.#path), 0o755)
      replaceFile(this.#path, Buffer.from(text), 0o644)
      makeDirectory(this.#stateDir, 0o700)
      replaceFile(markPath(this.#stateDir), Buffer.from(identityOf(this.#path) ?? ''), 0o600)
      this.#health.clear('SUBNET_FILE_UNWRITABLE')
      return true
    } catch (error) {
      this.#health.raise(
        'SUBNET_FILE_UNWRITABLE',
        `${this.#path}: ${reasonOf(error)}`,
        `free space or make ${dirname(this.#path)} writable, or choose another --subnet-file; weftd retries`
      )
      return false
    }
  }
}
