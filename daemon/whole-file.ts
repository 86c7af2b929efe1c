// Writes a file whole or not at all, so that readers and the next weftd see the old one or the new one, never a half.
import { renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { makeDirectory } from '../ipam/reservations.ts'

/** Makes the directory when it is missing. Nothing is forced to disk: what is written here is of no use after a reboot. Errors: the system's. */
export function writeWhole(
  path: string,
  text: string,
  mode: { readonly file: number; readonly directory: number }
): void {
  makeDirectory(dirname(path), mode.directory)
  const unfinished = `${path}.new`
  writeFileSync(unfinished, text, { mode: mode.file })
  renameSync(unfinished, path)
}
