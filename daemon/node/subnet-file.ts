// subnet.env on disk: what an earlier daemon (ours or flanneld) left, and what Docker and others read of us, replaced atomically.
import { statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import { Backoff } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { removeFile, replaceFile } from '../base/replace-file.ts'
import { parseSubnetEnv, printSubnetEnv, type SubnetEnv } from '../config/subnet-env.ts'
import type { Health } from '../health/health.ts'

/** The subnets of an earlier run; none when the file is missing, and none (with a warning) when it can't be understood. */
export function previousSubnets(path: string, log: Log): PerFamily<Prefix> {
  let text: string | undefined
  try {
    text = contentOf(path)
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, 'the previous subnet.env can not be read')
  }
  if (text === undefined) return {}
  try {
    return parseSubnetEnv(text, path).subnet
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, 'the previous subnet.env is not understood and will be replaced')
    return {}
  }
}

/** Below --state-dir: which file we wrote last, so that one which flanneld has put in its place since is known, though it may say the same. */
const markPath = (stateDir: string): string => join(stateDir, 'subnet-file.json')

/** `undefined` when there is no file. Errors: what stat(2) says. */
function identityOf(path: string): string | undefined {
  const about = statSync(path, { bigint: true, throwIfNoEntry: false })
  return about && JSON.stringify({ path, inode: String(about.ino), modifiedNs: String(about.mtimeNs) })
}

/** Takes subnet.env away if it is the one that a weftd with this state directory wrote last. Says false when it is somebody else's, and stays. Errors: what unlink(2) says. */
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
  /** Nothing is tried again after it. */
  readonly signal: AbortSignal
}

export class SubnetFile {
  readonly #path: string
  readonly #stateDir: string
  readonly #health: Pick<Health, 'raise' | 'clear'>
  readonly #signal: AbortSignal
  /** Ends the attempts to write what is out of date by then. */
  #attempts = new AbortController()

  constructor({ path, stateDir, health, signal }: SubnetFileDeps) {
    this.#path = path
    this.#stateDir = stateDir
    this.#health = health
    this.#signal = signal
  }

  /** Writes the file whole or not at all. While that fails a condition says so, and it is tried again; nothing else has to wait. */
  write(env: SubnetEnv): void {
    const text = printSubnetEnv(env)
    this.#attempts.abort()
    if (this.#wrote(text)) return
    this.#attempts = new AbortController()
    void this.#untilWritten(text, AbortSignal.any([this.#signal, this.#attempts.signal]))
  }

  async #untilWritten(text: string, signal: AbortSignal): Promise<void> {
    const backoff = new Backoff()
    try {
      do await backoff.pause(signal)
      while (!this.#wrote(text))
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
      this.#health.raise('SUBNET_FILE_UNWRITABLE', `${this.#path}: ${reasonOf(error)}`)
      return false
    }
  }
}
