// Loads native add-ons for the bundled packages: in the executable they are assets, and the dynamic loader can only
// read them from disk.
import { createHash } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { getRawAsset, isSea } from 'node:sea'

/** Tried in this order: /run is often mounted noexec, the root file system read-only, /tmp either. */
const PLACES = ['/run/weft', '/var/lib/weft', '/var/cache/weft', '/dev/shm', tmpdir()] as const

const loaded = new Map<string, unknown>()

/**
 * The exports of the addon `name` (as `koffi.node`). `beside` is the folder it lies in when the bundle is run by node.
 * Errors: no place is writable and allows code to be mapped; the message lists each with its reason.
 */
export function loadAddon(name: string, beside: string): unknown {
  if (!loaded.has(name)) loaded.set(name, isSea() ? extracted(name) : open(join(beside, name)))
  return loaded.get(name)
}

function open(path: string): unknown {
  const module = { exports: {} }
  process.dlopen(module, path)
  return module.exports
}

/** Beside the executable where nothing can be written, as in the image: weftd in bin/, this in lib/weft/. */
const shippedPath = (name: string): string => join(dirname(process.execPath), '../lib/weft', name)

function extracted(name: string): unknown {
  const content = new Uint8Array(getRawAsset(name) as ArrayBuffer)
  // Whoever can replace that file could replace the executable as well.
  if (same(shippedPath(name), content)) return open(shippedPath(name))
  const hash = createHash('sha256').update(content).digest('hex').slice(0, 16)
  const refused: string[] = []
  for (const place of PLACES) {
    try {
      const folder = join(place, `weft-addons-${process.geteuid?.() ?? 0}`)
      privateFolder(place, folder)
      removeOthers(folder, name, hash)
      privateFolder(folder, join(folder, `${name}-${hash}`))
      const file = join(folder, `${name}-${hash}`, name)
      if (!same(file, content)) writeWhole(file, content)
      return open(file)
    } catch (error) {
      refused.push(`${place}: ${error instanceof Error ? error.message.split('\n')[0] : error}`)
    }
  }
  throw new Error(
    `the native add-on ${name} cannot be unpacked anywhere: ${refused.join('; ')}. ` +
      'Cure: make one of these directories writable and mount it without noexec'
  )
}

/** Creates the directory for this user only. One that another user made, or could have put files in, is rejected. */
function privateFolder(parent: string, folder: string): void {
  mkdirSync(parent, { recursive: true, mode: 0o700 })
  try {
    mkdirSync(folder, { mode: 0o700 })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const found = lstatSync(folder)
  if (!found.isDirectory() || found.uid !== process.geteuid?.() || (found.mode & 0o077) !== 0)
    throw new Error(
      `${folder} is not a directory of ours alone (owner ${found.uid}, mode ${(found.mode & 0o777).toString(8)})`
    )
}

/** Removes what other versions left; a process that has mapped such a file keeps it. */
function removeOthers(folder: string, name: string, hash: string): void {
  for (const entry of readdirSync(folder)) {
    if (entry.startsWith(`${name}-`) && entry !== `${name}-${hash}`)
      rmSync(join(folder, entry), { recursive: true, force: true })
  }
}

function same(file: string, content: Uint8Array): boolean {
  try {
    return lstatSync(file).isFile() && Buffer.compare(readFileSync(file), content) === 0
  } catch {
    return false
  }
}

/** Written under a name of this process first, so that two starting at once never see an incomplete file. */
function writeWhole(file: string, content: Uint8Array): void {
  const half = `${file}.${process.pid}`
  writeFileSync(half, content, { mode: 0o500 })
  renameSync(half, file)
}
