// `weftd install`: copies the plugin executables into the runtime's directory, each atomically, and leaves other
// programs' files alone.
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { codeOf, ifThere, makeDirectory } from '../../ipam/files.ts'
import { readFile } from '../../ipam/read-file.ts'
import { defaultSocketPath } from '../../plugins/protocol.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { replaceFile } from '../base/replace-file.ts'

export type InstallOptions = {
  /** Folder with each plugin under its name. */
  readonly from: string
  /** Usually /opt/cni/bin; created when missing. */
  readonly to: string
  /** Also replace other programs' files. */
  readonly replaceForeign: boolean
}

export type Installed =
  | {
      readonly kind: 'installed' | 'replaced' | 'same' | 'kept'
      readonly path: string
      /** SHA-256 of the file that is now there. */
      readonly sum: string
    }
  | { readonly kind: 'failed'; readonly path: string; readonly error: WeftError }

/** Larger files are not Weft's (an executable has at most 3 MB): removal need not read them. In bytes. */
const LARGEST = 4 << 20
/** Of another program's executable of the same name: its sum is printed. In bytes. */
const LARGEST_FOREIGN = 128 << 20
const ELF = Buffer.from('\x7fELF', 'latin1')
/**
 * Every version of Weft's executables contains this socket path. It identifies them without a list of installed files,
 * which could be lost.
 */
const MARK = Buffer.from(defaultSocketPath, 'latin1')

const isOurs = (content: Buffer): boolean => content.subarray(0, ELF.length).equals(ELF) && content.includes(MARK)
const sumOf = (content: Uint8Array): string => createHash('sha256').update(content).digest('hex')

/** Installs every plugin; one that fails does not stop the others. Never throws. */
export function installPlugins(options: InstallOptions): readonly Installed[] {
  if (!existsSync(options.from)) return [{ kind: 'failed', path: options.to, error: sourceMissing(options.from) }]
  return pluginTypes.map((name) => {
    const path = join(options.to, name)
    try {
      return installed(options, name, path)
    } catch (cause) {
      return { kind: 'failed', path, error: refused(path, cause) }
    }
  })
}

function installed({ from, to, replaceForeign }: InstallOptions, name: string, path: string): Installed {
  const content = readFile(join(from, name), LARGEST)
  if (!isOurs(content)) throw new Error(`${join(from, name)} is not a plugin of Weft`)
  makeDirectory(to, 0o755)
  const found = fileAt(path)
  const sum = sumOf(content)
  if (found?.content.equals(content) && found.isExecutable) return { kind: 'same', path, sum }
  // A file named `weft` that is not recognised is a truncated one of ours, not another program's.
  if (found && !isOurs(found.content) && !replaceForeign && name !== 'weft')
    return { kind: 'kept', path, sum: sumOf(found.content) }
  replaceFile(path, content, 0o755)
  return { kind: found ? 'replaced' : 'installed', path, sum }
}

/** Names of Weft's plugins that are other programs' executables in this directory, those of them that exist. */
export const foreignPlugins = (directory: string): readonly string[] =>
  pluginTypes.filter((name) => {
    const found = fileAt(join(directory, name))
    return found !== undefined && !isOurs(found.content)
  })

const sourceMissing = (from: string): WeftError =>
  new WeftError(
    'INSTALL_FAILED',
    `no plugins can be installed: the directory ${from} does not exist`,
    'set --cni-source-dir to the absolute path of the directory with the plugins (dist/cni after scripts/build)'
  )

const refused = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'INSTALL_FAILED',
    `${path} cannot be installed: ${reasonOf(cause)}`,
    `make ${dirname(path)} writable and free disk space, or choose another directory with --cni-bin-dir and configure it in the runtime (containerd: bin_dir)`,
    { cause }
  )

const fileAt = (path: string): { readonly content: Buffer; readonly isExecutable: boolean } | undefined =>
  ifThere(path, () => ({
    content: readFile(path, LARGEST_FOREIGN),
    isExecutable: (statSync(path).mode & 0o111) === 0o111
  }))

/** One line for each file. */
export function installedText(result: Installed): string {
  switch (result.kind) {
    case 'installed':
    case 'replaced':
    case 'same':
      return `${result.path}: ${{ installed: 'installed', replaced: 'replaced', same: 'already the same' }[result.kind]} (sha256 ${result.sum.slice(0, 12)})`
    case 'kept':
      return `${result.path}: kept, it is another program's (sha256 ${result.sum.slice(0, 12)}); --replace-foreign replaces it with Weft's`
    case 'failed':
      return `${result.error.message}\ncure: ${result.error.cure}`
  }
}

/** Deletes Weft's executables of any version and name from the directory; their paths. Errors: of unlink(2). */
export function removePlugins(directory: string): readonly string[] {
  const removed: string[] = []
  const failures: unknown[] = []
  for (const entry of ifThere(directory, (path) => readdirSync(path)) ?? []) {
    const path = join(directory, entry)
    try {
      const about = statSync(path, { throwIfNoEntry: false })
      if (!about?.isFile() || about.size > LARGEST || !isOurs(readFile(path, LARGEST))) continue
      rmSync(path, { force: true })
      removed.push(path)
    } catch (error) {
      // A link to itself is no plugin of Weft's; anything else is reported after the others are removed.
      if (codeOf(error) !== 'ELOOP') failures.push(error)
    }
  }
  if (failures.length > 0) throw failures[0]
  return removed
}
