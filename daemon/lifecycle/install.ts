// `weftd install`: the plugin executables in the directory where the runtime looks for them, each replaced whole, with other programs' files left alone.
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { ifThere, makeDirectory } from '../../ipam/files.ts'
import { defaultSocketPath } from '../../plugins/protocol.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { replaceFile } from '../base/replace-file.ts'

export type InstallOptions = {
  /** Folder that holds each plugin under its name. */
  readonly from: string
  /** Usually /opt/cni/bin; made when it is missing. */
  readonly to: string
  /** Also the files that are not ours. */
  readonly replaceForeign: boolean
}

export type Installed =
  | {
      readonly kind: 'installed' | 'replaced' | 'same' | 'kept'
      readonly path: string
      /** SHA-256 of what is there now. */
      readonly sum: string
    }
  | { readonly kind: 'failed'; readonly path: string; readonly error: WeftError }

/** Bytes above which no file is ours (design: an executable has at most 3 MB), so that removal does not read all that others installed. */
const LARGEST = 4 << 20
const ELF = Buffer.from('\x7fELF', 'latin1')
/** Every executable of ours, whatever its version, asks for this socket. A list of what was installed would be lost when somebody cleans up. */
const MARK = Buffer.from(defaultSocketPath, 'latin1')

const isOurs = (content: Buffer): boolean => content.subarray(0, ELF.length).equals(ELF) && content.includes(MARK)
const sumOf = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')

/** Puts every plugin of this version in place, one after the other; one that fails does not stop the others. Never throws. */
export function installPlugins(wish: InstallOptions): readonly Installed[] {
  if (!existsSync(wish.from)) return [{ kind: 'failed', path: wish.to, error: sourceMissing(wish.from) }]
  return pluginTypes.map((name) => {
    const path = join(wish.to, name)
    try {
      return installed(wish, name, path)
    } catch (cause) {
      return { kind: 'failed', path, error: refused(path, cause) }
    }
  })
}

function installed({ from, to, replaceForeign }: InstallOptions, name: string, path: string): Installed {
  const content = readFileSync(join(from, name))
  if (!isOurs(content)) throw new Error(`${join(from, name)} is no plugin of Weft`)
  makeDirectory(to, 0o755)
  const found = fileAt(path)
  const sum = sumOf(content)
  if (found?.content.equals(content) && found.isExecutable) return { kind: 'same', path, sum }
  // Under our own name stands no other program, but perhaps half a file.
  if (found && !isOurs(found.content) && !replaceForeign && name !== 'weft')
    return { kind: 'kept', path, sum: sumOf(found.content) }
  replaceFile(path, content, 0o755)
  return { kind: found ? 'replaced' : 'installed', path, sum }
}

const sourceMissing = (from: string): WeftError =>
  new WeftError(
    'INSTALL_FAILED',
    `no plugins can be installed: there is no directory ${from}`,
    'name the one that holds them with --cni-source-dir, an absolute path: dist/cni after scripts/build'
  )

const refused = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'INSTALL_FAILED',
    `${path} can not be installed: ${reasonOf(cause)}`,
    "make its directory writable and give it room; where the system's is read-only, choose another with --cni-bin-dir and tell the runtime (bin_dir of containerd)",
    { cause }
  )

const fileAt = (path: string): { readonly content: Buffer; readonly isExecutable: boolean } | undefined =>
  ifThere(path, () => ({ content: readFileSync(path), isExecutable: (statSync(path).mode & 0o111) === 0o111 }))

/** One line for each file. */
export function installedText(result: Installed): string {
  switch (result.kind) {
    case 'installed':
    case 'replaced':
    case 'same':
      return `${result.path}: ${{ installed: 'installed', replaced: 'replaced', same: 'already the same' }[result.kind]} (sha256 ${result.sum.slice(0, 12)})`
    case 'kept':
      return `${result.path}: kept, it is another program's (sha256 ${result.sum.slice(0, 12)}); --replace-foreign puts Weft's in its place`
    case 'failed':
      return `${result.error.message}\ncure: ${result.error.cure}`
  }
}

/** Takes our executables out of the directory, whatever version put them there and under whatever names; resolves with their paths. Errors: what unlink(2) says. */
export function removePlugins(directory: string): readonly string[] {
  const removed: string[] = []
  for (const entry of ifThere(directory, (path) => readdirSync(path)) ?? []) {
    const path = join(directory, entry)
    const about = statSync(path, { throwIfNoEntry: false })
    if (!about?.isFile() || about.size > LARGEST || !isOurs(readFileSync(path))) continue
    rmSync(path, { force: true })
    removed.push(path)
  }
  return removed
}
