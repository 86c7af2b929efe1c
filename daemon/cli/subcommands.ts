// weftd's subcommands `install`, `clean` and `udp-proxy`: their flag tables, from which they are parsed and their help is printed.

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
    help: 'directory to install the plugins from'
  },
  'replace-foreign': {
    group: 'flags',
    reader: toggle,
    default: 'false',
    help: "also replace other programs' files of the same names, such as bridge or host-local of the reference plugins"
  },
  help: { group: 'flags', reader: toggle, default: 'false', help: 'print this text' }
} as const satisfies Flags

/** The flags that matter to `weftd clean`; it accepts all of weftd's. */
const CLEAN_FLAGS = {
  'cni-conf-dir': {
    ...FLAGS['cni-conf-dir'],
    group: 'flags',
    default: '/etc/cni/net.d',
    help: 'directory of 10-weft.conflist'
  },
  'cni-bin-dir': { ...FLAGS['cni-bin-dir'], group: 'flags', default: '/opt/cni/bin', help: 'directory of the plugins' },
  'subnet-file': { ...FLAGS['subnet-file'], group: 'flags' },
  'state-dir': { ...FLAGS['state-dir'], group: 'flags', help: "directory of weftd's state" },
  'node-name': { ...FLAGS['node-name'], group: 'flags' },
  help: INSTALL_FLAGS.help
} as const satisfies Flags

export const UDP_PROXY_FLAGS = {
  'state-dir': { ...FLAGS['state-dir'], group: 'flags', help: "directory of weftd's state: udp-proxy.sock is there" },
  replace: {
    group: 'flags',
    reader: toggle,
    default: 'false',
    help: 'take over from a udp-proxy that runs, instead of refusing to start beside it'
  },
  help: INSTALL_FLAGS.help
} as const satisfies Flags

/** Defaults of `weftd clean`. */
const CLEAN_DEFAULTS = {
  cniConfDir: CLEAN_FLAGS['cni-conf-dir'].default,
  cniBinDir: CLEAN_FLAGS['cni-bin-dir'].default
} as const

/** All commands that a person runs, the two that print pages included. */
const WORDS = ['install', 'clean', 'man', 'completion']

export type Command =
  | { readonly kind: 'install'; readonly flags: Values<typeof INSTALL_FLAGS> }
  | { readonly kind: 'install help' }
  | { readonly kind: 'udp-proxy'; readonly flags: Values<typeof UDP_PROXY_FLAGS> }
  | { readonly kind: 'udp-proxy help' }
  | { readonly kind: 'wrong'; readonly errors: readonly WeftError[] }
  | { readonly kind: 'clean help' }
  | { readonly kind: 'clean'; readonly parsed: ParsedOptions }
  | { readonly kind: 'daemon'; readonly parsed: ParsedOptions }

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Parses the command line without program and script: the first word is a command, or everything belongs to the daemon.
 */
export function parseCommand(argv: readonly string[], env: Environment): Command {
  const [word, ...rest] = argv
  if (word === 'install') return parseInstall(rest, env)
  if (word === 'udp-proxy') return parseUdpProxy(rest, env)
  if (word === 'clean') {
    const parsed = parseOptions(rest, env)
    return parsed.kind === 'help' ? { kind: 'clean help' } : { kind: 'clean', parsed: withPlaces(parsed) }
  }
  const parsed = parseOptions(argv, env)
  // A first word that is not a flag was meant as a command.
  if (parsed.kind === 'wrong' && word?.startsWith('-') === false)
    return { kind: 'wrong', errors: [unknownCommand('weftd', word, WORDS)] }
  return { kind: 'daemon', parsed }
}

function parseInstall(argv: readonly string[], env: Environment): Command {
  const parsed = parseFlags(INSTALL_FLAGS, PREFIXES, argv, env)
  if ('errors' in parsed) return { kind: 'wrong', errors: parsed.errors }
  return parsed.values.help ? { kind: 'install help' } : { kind: 'install', flags: parsed.values }
}

function parseUdpProxy(argv: readonly string[], env: Environment): Command {
  const parsed = parseFlags(UDP_PROXY_FLAGS, PREFIXES, argv, env)
  if ('errors' in parsed) return { kind: 'wrong', errors: parsed.errors }
  return parsed.values.help ? { kind: 'udp-proxy help' } : { kind: 'udp-proxy', flags: parsed.values }
}

/** Adds the usual directories, so that flags with the usual values need not be repeated. */
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
): string => `weftd install installs the CNI plugin executables where the runtime looks for them.

Usage: weftd install [--flag=value …]

Each file is replaced atomically. Files of the same name that belong to other programs are kept.

${printFlags(INSTALL_FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 all installed or kept, 1 some not, 2 usage error.
`

/** The text of `weftd clean --help`; `width` in columns. */
export const printCleanHelp = (
  width: number
): string => `weftd clean removes from this node what Weft has put there. weftd must not be running.

Usage: weftd clean [--flag=value …]

Removed:  10-weft.conflist; the tunnel, routes and firewall tables of Weft;
          Weft's plugins of any version, but no other program's; subnet.env, if
          weftd wrote it last; the bridge, if no pod is left; the saved lease.
Kept:     running pods with their interfaces and the bridge, until they are
          deleted; reserved pod addresses (/var/lib/cni/networks); the lease in
          the store, which expires or is deleted with its Node object; the file
          of --store embedded; weftd.lock and weft-addons-0 in /run/weft, which
          a reboot empties; forwarding (net.ipv4.ip_forward); a bridge cni0 that
          weftd did not make, or with an address of an earlier subnet; weftd
          itself. The line before the last lists what stays here.

Each change is logged. Use the flags that weftd ran with: all of them are
accepted, and these matter:

${printFlags(CLEAN_FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 done, 1 not or partly (the log says why and what is left), 2 usage error.
`

/** The text of `weftd udp-proxy --help`; `width` in columns. */
export const printUdpProxyHelp = (
  width: number
): string => `weftd udp-proxy carries the packets of pods to other nodes for the udp backend on
kernels without FOU. weftd starts it when it is needed and tells it what to do;
it goes on while weftd is stopped, restarted or upgraded, and ends when another
backend is used or Weft is removed. Start it yourself only with
--udp-proxy=external, as the systemd unit and the container do.

Usage: weftd udp-proxy [--flag=value …]

${printFlags(UDP_PROXY_FLAGS, { flags: 'Flags' }, width)}

Exit status: 0 ended by weftd or a signal, 1 an error, 2 usage error.
`
