// weftd's commands besides running: `weftd install` and `weftd clean`, each with its table of flags, from which its help is printed too.

import type { WeftError } from '../base/error.ts'
import { type Flags, parseFlags, printFlags, text, toggle, unknownCommand, type Values } from './flag-parser.ts'
import { FLAGS, PREFIXES } from './flag-table.ts'
import { type ParsedOptions, parseOptions } from './parse-options.ts'

export const INSTALL_FLAGS = {
  'cni-bin-dir': {
    ...FLAGS['cni-bin-dir'],
    group: 'flags',
    default: '/opt/cni/bin',
    help: 'directory where the runtime looks for plugins'
  },
  'cni-source-dir': {
    group: 'flags',
    reader: text('DIR', 'a path that begins with /', /^\/./),
    default: '/usr/lib/weft/cni',
    help: 'directory that holds the plugins to be installed'
  },
  'replace-foreign': {
    group: 'flags',
    reader: toggle,
    default: 'false',
    help: "also put Weft's in the place of other programs' files, such as a bridge or host-local of the reference plugins"
  },
  help: { group: 'flags', reader: toggle, default: 'false', help: 'print this text' }
} as const satisfies Flags

/** Those that matter to `weftd clean`; it takes every one of weftd's. */
const CLEAN_FLAGS = {
  'cni-conf-dir': {
    ...FLAGS['cni-conf-dir'],
    group: 'flags',
    default: '/etc/cni/net.d',
    help: 'directory of 10-weft.conflist'
  },
  'cni-bin-dir': { ...FLAGS['cni-bin-dir'], group: 'flags', default: '/opt/cni/bin', help: 'directory of the plugins' },
  'subnet-file': { ...FLAGS['subnet-file'], group: 'flags' },
  'state-dir': { ...FLAGS['state-dir'], group: 'flags', help: 'directory of what weftd remembers' },
  'node-name': { ...FLAGS['node-name'], group: 'flags' },
  help: INSTALL_FLAGS.help
} as const satisfies Flags

/** What `weftd clean` takes away, unless other places are named. */
const CLEAN_DEFAULTS = {
  cniConfDir: CLEAN_FLAGS['cni-conf-dir'].default,
  cniBinDir: CLEAN_FLAGS['cni-bin-dir'].default
} as const

/** Pages too, which flag-table.ts knows. */
const WORDS = ['install', 'clean', 'man', 'completion']

export type Command =
  | { readonly kind: 'install'; readonly flags: Values<typeof INSTALL_FLAGS> }
  | { readonly kind: 'install help' }
  | { readonly kind: 'wrong'; readonly errors: readonly WeftError[] }
  | { readonly kind: 'clean help' }
  | { readonly kind: 'clean'; readonly parsed: ParsedOptions }
  | { readonly kind: 'daemon'; readonly parsed: ParsedOptions }

type Environment = Readonly<Record<string, string | undefined>>

/** Reads the command line without program and script: the first word is a command, or everything is the daemon's. */
export function parseCommand(argv: readonly string[], env: Environment): Command {
  const [word, ...rest] = argv
  if (word === 'install') return parseInstall(rest, env)
  if (word === 'clean') {
    const parsed = parseOptions(rest, env)
    return parsed.kind === 'help' ? { kind: 'clean help' } : { kind: 'clean', parsed: withPlaces(parsed) }
  }
  const parsed = parseOptions(argv, env)
  // A first word that is no flag was meant for a command.
  if (parsed.kind === 'wrong' && word?.startsWith('-') === false)
    return { kind: 'wrong', errors: [unknownCommand('weftd', word, WORDS)] }
  return { kind: 'daemon', parsed }
}

function parseInstall(argv: readonly string[], env: Environment): Command {
  const parsed = parseFlags(INSTALL_FLAGS, PREFIXES, argv, env)
  if ('errors' in parsed) return { kind: 'wrong', errors: parsed.errors }
  return parsed.values.help ? { kind: 'install help' } : { kind: 'install', flags: parsed.values }
}

/** A node is cleaned where it usually is dirty: whoever gave these flags to weftd need not repeat them when they are the usual ones. */
function withPlaces(parsed: ParsedOptions): ParsedOptions {
  if (parsed.kind !== 'run') return parsed
  const { cniConfDir, cniBinDir } = parsed.options
  return {
    ...parsed,
    options: {
      ...parsed.options,
      cniConfDir: cniConfDir ?? CLEAN_DEFAULTS.cniConfDir,
      cniBinDir: cniBinDir ?? CLEAN_DEFAULTS.cniBinDir
    }
  }
}

/** The text of `weftd install --help`; `width` in columns. */
export const printInstallHelp = (
  width: number
): string => `weftd install puts the plugin executables where the runtime looks for them.

Usage: weftd install [--flag=value …]

Each file is replaced whole. One that another program put there under the same name is kept.

${printFlags(INSTALL_FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 all in place or kept, 1 some not, 2 wrong words.
`

/** The text of `weftd clean --help`; `width` in columns. */
export const printCleanHelp = (
  width: number
): string => `weftd clean takes off this node what Weft has put there. No weftd may run on it.

Usage: weftd clean [--flag=value …]

It goes:   10-weft.conflist; the tunnel, routes and firewall tables of Weft; the
           plugins of Weft, whatever version, with other programs' left alone;
           subnet.env, if weftd wrote it last; the bridge, when no pod is left;
           what weftd remembers of its lease.
It stays:  pods that still run, with their interfaces and the bridge, until they
           are deleted; reserved pod addresses (/var/lib/cni/networks); the lease
           in the store, which ends there by itself or with its node object; the
           file of --store embedded; weftd.lock and weft-addons-0 in /run/weft,
           which a reboot empties; weftd itself.

Each change is a line of the log. Give the flags that weftd was run with; all of
weftd's are taken, and these matter:

${printFlags(CLEAN_FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 done, 1 not or in part (the log says why and what is left), 2 wrong words.
`
