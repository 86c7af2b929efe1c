// subnet.env on disk: what an earlier daemon (ours or flanneld) left, and what Docker and others read of us, replaced atomically.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { PerFamily, Prefix } from '../ipam/address.ts'
import { parseSubnetEnv, printSubnetEnv, type SubnetEnv } from './config/subnet-env.ts'
import { reasonOf, WeftError } from './error.ts'
import type { Log } from './log.ts'

/** The subnets of an earlier run; none when the file is missing, and none (with a warning) when it can't be understood. */
export function previousSubnets(path: string, log: Log): PerFamily<Prefix> {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.warn({ path, reason: reasonOf(error) }, 'the previous subnet.env can not be read')
    return {}
  }
  try {
    return parseSubnetEnv(text, path).subnet
  } catch (error) {
    log.warn({ path, reason: reasonOf(error) }, 'the previous subnet.env is not understood and will be replaced')
    return {}
  }
}

/** Writes the file whole or not at all; readers see the old one or the new one. Errors: STATE_UNWRITABLE with the path. */
export function writeSubnetFile(path: string, env: SubnetEnv): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
    const text = printSubnetEnv(env)
    const temporary = `${path}.new`
    writeFileSync(temporary, text, { mode: 0o644 })
    renameSync(temporary, path)
  } catch (cause) {
    throw new WeftError(
      'STATE_UNWRITABLE',
      `${path} can't be written: ${reasonOf(cause)}`,
      'free space, or make its directory writable, or choose another --subnet-file',
      { cause }
    )
  }
}
