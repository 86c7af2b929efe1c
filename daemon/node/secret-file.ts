// A backend's secret of this host: read from its files, or made and written for the next start.
import { randomBytes } from 'node:crypto'
import { chmodSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import type { ConfiguredBackend, HostSecret } from '../backend/backend.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/replace-file.ts'
import { publicKeyOf } from '../base/x25519.ts'
import type { Node } from '../state/node.ts'

/**
 * The value in the first file that holds a valid one; else a new one. An error is only logged: the value then lasts
 * until weftd ends.
 */
export function hostSecret({ files, isValid, make }: HostSecret, log: Log): string {
  for (const path of files) {
    const text = readOrWarn(path, log)
    if (text === undefined) continue
    if (isValid(text)) return text
    log.warn({ path }, 'the file does not hold a valid secret and is not used')
  }
  const made = make(
    (octets) => randomBytes(octets),
    (octets) => Buffer.from(octets).toString('base64')
  )
  const [path] = files
  if (path !== undefined) writeOrWarn(path, made, log)
  return made
}

function readOrWarn(path: string, log: Log): string | undefined {
  try {
    const text = contentOf(path)?.trim()
    if (text !== undefined) closeToOthers(path, log)
    return text
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, "can't read the secret")
    return undefined
  }
}

/** Who has read it meanwhile is not known: the log says so, and the value stays, since peers may know it. */
function closeToOthers(path: string, log: Log): void {
  const mode = statSync(path).mode & 0o777
  if ((mode & 0o077) === 0) return
  log.warn(
    {
      path,
      mode: mode.toString(8),
      cure: `delete ${path} and restart weftd if other users of this host may have read it`
    },
    'the file of a secret was open to other users, and is now readable by its owner only'
  )
  chmodSync(path, 0o600)
}

function writeOrWarn(path: string, text: string, log: Log): void {
  try {
    makeDirectory(dirname(path), 0o700)
    replaceFile(path, Buffer.from(`${text}\n`), 0o600)
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, "can't write the secret for the next start")
  }
}

/** The backends' secrets, read or made at most once. */
export class BackendSecrets {
  readonly #log: Log
  /** By backend type: a configuration that was refused may have named another backend. */
  readonly #secrets = new Map<string, string>()

  constructor(log: Log) {
    this.#log = log
  }

  /** Reads the backend's secret, or makes it and writes its file: only for a configuration that is accepted. */
  of({ type, secret }: ConfiguredBackend): Pick<Node, 'secret' | 'publicKey'> {
    if (secret === undefined) return {}
    const value = this.#secrets.get(type) ?? hostSecret(secret, this.#log)
    this.#secrets.set(type, value)
    return { secret: value, ...(secret.keyPair && { publicKey: publicKeyOf(value) }) }
  }
}
