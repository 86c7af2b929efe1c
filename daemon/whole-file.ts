// Writes a file whole or not at all, so that readers and the next weftd see the old one or the new one, never a half.
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** Makes the directory when it is missing. Nothing is forced to disk: what is written here is of no use after a reboot. Errors: the system's. */
export function writeWhole(
  path: string,
  text: string,
  mode: { readonly file: number; readonly directory: number }
): void {
  mkdirSync(dirname(path), { recursive: true, mode: mode.directory })
  const unfinished = `${path}.new`
  writeFileSync(unfinished, text, { mode: mode.file })
  renameSync(unfinished, path)
}
