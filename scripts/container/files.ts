// What is in the image, file by file: the executables, the shared libraries they need, iptables' programs, and no shell.
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { basename, dirname, join, relative } from 'node:path'
import { pluginTypes } from '../../plugins/types/registry.ts'

/**
 * Debian's packages that the files of `hostFiles` come from, for the Dockerfile: Node's libatomic and libstdc++;
 * libnftables, through which the firewall is changed, with the extensions by which it reads rules of iptables; the
 * programs of both kinds of iptables; the names of protocols, which libnftables asks the C library for.
 */
export const PACKAGES = ['libatomic1', 'libstdc++6', 'libnftables1', 'iptables', 'netbase'] as const

/** The programs of each kind of iptables that weftd executes, all links to one of that kind. */
const KINDS = ['nft', 'legacy'] as const
const PROGRAMS = ['', '-save', '-restore'] as const
const multiOf = (kind: (typeof KINDS)[number]): string => `/usr/sbin/xtables-${kind}-multi`

/** Loaded by name at run time (koffi), so no ldd shows it. */
const LOADED = ['libnftables.so.1'] as const

/** Debian's merged /usr, and /var/run, under which runtimes name network namespaces. */
const LINKS: Readonly<Record<string, string>> = {
  bin: 'usr/bin',
  sbin: 'usr/sbin',
  lib: 'usr/lib',
  lib64: 'usr/lib64',
  'var/run': '/run'
}

/** glibc's default since 2.34, made explicit; the modules for both are inside libc.so.6. */
const NSSWITCH = 'hosts: files dns\nprotocols: files\nservices: files\n'

export type Entry =
  | { readonly kind: 'copy'; readonly from: string }
  | { readonly kind: 'text'; readonly text: string }
  /** A second name of a file of the image. */
  | { readonly kind: 'hard link' | 'symbolic link'; readonly to: string }

/**
 * Path in the image → what is there. `dist`: the directory that scripts/build fills. Errors: a missing file, by its
 * path.
 */
export function imageFiles(dist: string): ReadonlyMap<string, Entry> {
  const files = new Map<string, Entry>()
  const copy = (path: string, from: string) => {
    if (!existsSync(from)) throw new Error(`${from} is missing; cure: scripts/build, or install ${PACKAGES.join(' ')}`)
    files.set(path, { kind: 'copy', from })
  }
  copy('usr/bin/weftd', join(dist, 'bin/weftd'))
  for (const name of ['weftctl', 'kubectl-weft'])
    files.set(`usr/bin/${name}`, { kind: 'hard link', to: 'usr/bin/weftd' })
  // Beside the executable, because nothing in the container is both writable and executable.
  copy('usr/lib/weft/koffi.node', join(dist, 'lib/koffi.node'))
  const [first = '', ...others] = pluginTypes
  copy(`usr/lib/weft/cni/${first}`, join(dist, 'cni', first))
  for (const name of others)
    files.set(`usr/lib/weft/cni/${name}`, { kind: 'hard link', to: `usr/lib/weft/cni/${first}` })
  for (const kind of KINDS) {
    copy(multiOf(kind).slice(1), multiOf(kind))
    for (const name of PROGRAMS.flatMap((program) => [`iptables-${kind}${program}`, `ip6tables-${kind}${program}`]))
      files.set(`usr/sbin/${name}`, { kind: 'symbolic link', to: basename(multiOf(kind)) })
  }
  const extensions = extensionFiles()
  const libraries = closure([
    join(dist, 'bin/weftd'),
    join(dist, 'lib/koffi.node'),
    ...KINDS.map(multiOf),
    ...LOADED.map(found),
    ...extensions
  ])
  for (const path of [...extensions, ...LOADED.map(found), ...libraries]) addLibrary(files, path)
  for (const [path, to] of Object.entries(LINKS)) files.set(path, { kind: 'symbolic link', to })
  copy('etc/protocols', '/etc/protocols')
  files.set('etc/nsswitch.conf', { kind: 'text', text: NSSWITCH })
  return files
}

/** The folder of libnftables and the other libraries on this machine: Debian's, by architecture. */
const libraryFolder = (): string => `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`
const found = (name: string): string => join(libraryFolder(), name)

/** One for each match and target that an iptables rule may have: without it, the rule cannot be read. */
function extensionFiles(): readonly string[] {
  const folder = join(libraryFolder(), 'xtables')
  // Those for bridges and ARP belong to other programs.
  return readdirSync(folder)
    .filter((name) => /^lib(xt|ipt|ip6t)_.*\.so$/.test(name))
    .sort()
    .map((name) => join(folder, name))
}

/**
 * Every shared library that the files need, by the paths at which the dynamic loader finds them here, the loader itself
 * among them.
 */
function closure(files: readonly string[]): readonly string[] {
  const said = execFileSync('ldd', files, { encoding: 'utf8' })
  const missing = said.split('\n').find((line) => line.includes('not found'))
  if (missing !== undefined) throw new Error(`a library is missing: ${missing.trim()}`)
  const needed = new Set<string>()
  for (const [, path] of said.matchAll(/(?:=> |^\s+)(\/\S+) \(0x/gm)) if (path !== undefined) needed.add(path)
  return [...needed].sort()
}

/** The file where it really is, and the names under which it is looked for, all below /usr. */
function addLibrary(files: Map<string, Entry>, path: string): void {
  const real = realpathSync(path)
  files.set(real.slice(1), { kind: 'copy', from: real })
  const name = join(realpathSync(dirname(path)), basename(path))
  if (name !== real) files.set(name.slice(1), { kind: 'symbolic link', to: relative(dirname(name), real) })
}

/** Makes the files in `root`, which must not exist. */
export function layOut(files: ReadonlyMap<string, Entry>, root: string): void {
  mkdirSync(root)
  for (const [path, entry] of [...files].sort(
    ([a, { kind: before }], [b, { kind: after }]) => rank[before] - rank[after] || (a < b ? -1 : 1)
  )) {
    const place = join(root, path)
    mkdirSync(dirname(place), { recursive: true })
    switch (entry.kind) {
      case 'copy':
        cpSync(entry.from, place)
        break
      case 'text':
        writeFileSync(place, entry.text)
        break
      case 'hard link':
        linkSync(join(root, entry.to), place)
        break
      case 'symbolic link':
        symlinkSync(entry.to, place)
    }
  }
  // Mount points of containers: created here, since the root may be read-only.
  for (const path of ['run', 'tmp', 'proc', 'sys', 'dev', 'opt/cni/bin', 'etc/cni', 'etc/weft', 'var/lib/cni'])
    if (!lstatSync(join(root, path), { throwIfNoEntry: false })) mkdirSync(join(root, path), { recursive: true })
}

/** Links after their targets. */
const rank: Readonly<Record<Entry['kind'], number>> = { copy: 0, text: 0, 'hard link': 1, 'symbolic link': 1 }
