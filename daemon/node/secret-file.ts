// A backend's secret of this host: read from its files, or made and written for the next start.
import { randomBytes } from 'node:crypto'
import { dirname } from 'node:path'
import { contentOf, makeDirectory } from '../../ipam/files.ts'
import type { HostSecret } from '../backend/backend.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { replaceFile } from '../base/replace-file.ts'

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
  const made = make((octets) => randomBytes(octets))
  const [path] = files
  if (path !== undefined) writeOrWarn(path, made, log)
  return made
}

function readOrWarn(path: string, log: Log): string | undefined {
  try {
    return contentOf(path)?.trim()
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, "can't read the secret")
    return undefined
  }
}

function writeOrWarn(path: string, text: string, log: Log): void {
  try {
    makeDirectory(dirname(path), 0o700)
    replaceFile(path, Buffer.from(`${text}\n`), 0o600)
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, "can't write the secret for the next start")
  }
}
