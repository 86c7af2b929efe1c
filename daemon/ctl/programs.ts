// Descriptions of weftd and weftctl, from which help, manual pages and completions are printed.
import { defaultSocketPath } from '../../plugins/protocol.ts'
import { type Flags, text, toggle, whole } from '../cli/flag-parser.ts'
import { GROUPS, PREFIXES, FLAGS as WEFTD_FLAGS } from '../cli/flag-table.ts'
import { MIGRATE_FLAGS } from '../cli/migrate-flags.ts'
import type { Described, Program } from './command.ts'

export const WEFTCTL_FLAGS = {
  socket: {
    group: 'flags',
    reader: text('FILE'),
    default: defaultSocketPath,
    help: 'socket of weftd, weftd.sock in its --state-dir; also WEFTCTL_SOCKET'
  },
  timeout: {
    group: 'flags',
    reader: whole('SECONDS', 1, 3600),
    default: '10',
    help: 'seconds to wait for the answer'
  },
  node: {
    group: 'flags',
    reader: text('NODE'),
    help: 'ask the weftd of this node of the cluster through kubectl; kubectl weft why pod finds the node by itself'
  },
  context: { group: 'flags', reader: text('NAME'), help: 'kubectl context to use with --node' },
  port: {
    group: 'flags',
    reader: whole('PORT', 0, 65_535),
    default: '0',
    help: 'port of weftctl page on 127.0.0.1; 0: a free one'
  },
  json: { group: 'flags', reader: toggle, default: 'false', help: 'print the answer as JSON' },
  help: { group: 'flags', reader: toggle, default: 'false', help: 'print this text' },
  version: { group: 'flags', reader: toggle, default: 'false', help: 'print the version' },
  ...MIGRATE_FLAGS
} as const satisfies Flags

export const WEFTCTL_PREFIXES = ['WEFTCTL_'] as const

const WEFTD_COMMANDS: Program['commands'] = {
  install: {
    about: 'install the CNI plugins; weftd install --help lists its flags'
  },
  clean: {
    about: 'remove Weft from this node, with the flags that weftd ran with; weftd clean --help says what is kept'
  },
  completion: {
    about: 'print shell completion',
    operands: [{ name: 'SHELL', oneOf: ['bash', 'zsh', 'fish'] }]
  },
  man: { about: 'print this manual page' }
}

export const WEFTD: Program = {
  name: 'weftd',
  aliases: [],
  about: 'lease a subnet for this node and connect it with those of the other nodes',
  description: [
    'weftd leases a subnet for this node from etcd, the Kubernetes API or a file, programs the kernel of this machine to reach the subnets of the other nodes, and serves the CNI plugins in /opt/cni/bin.',
    'Routes and pods keep working while weftd is not running. It needs root. weftctl(8), /readyz and the log report its state in the same words.'
  ],
  flags: WEFTD_FLAGS,
  groups: GROUPS,
  prefixes: PREFIXES,
  commands: WEFTD_COMMANDS,
  exits: [
    ['0', 'stopped by SIGTERM or SIGINT'],
    ['1', 'failed; the log says why'],
    ['2', 'a flag or variable is wrong; nothing was done']
  ],
  files: [
    [defaultSocketPath, 'the socket for plugins and weftctl, for root only'],
    ['/run/flannel/subnet.env', "subnet and MTU, for Docker and flannel's plugin"],
    ['/var/lib/cni/networks', 'reserved pod addresses, one directory per CNI network'],
    ['/var/lib/weft/leases.db', 'leases of --store embedded']
  ],
  seeAlso: ['weftctl(8)', 'ip(8)', 'bridge(8)', 'nft(8)', 'tc(8)']
}

/** `commands` are passed in by run.ts, since two of them print what is described here. */
export const weftctl = (commands: Readonly<Record<string, Described>>): Program => ({
  name: 'weftctl',
  aliases: ['kubectl-weft'],
  about: 'ask the weftd of this node for its state, what is wrong, and why',
  description: [
    'weftctl asks the weftd of this node through its socket. It prints tables, or JSON with --json. Only migrate apply and migrate rollback change anything.',
    'Installed as kubectl-weft in a directory of PATH, it is also "kubectl weft". With --node it asks the weft pod of that node through kubectl exec; "kubectl weft why pod NAMESPACE/NAME" needs no --node.'
  ],
  flags: WEFTCTL_FLAGS,
  groups: { flags: 'Flags', migrate: 'Flags of migrate' },
  prefixes: WEFTCTL_PREFIXES,
  commands,
  exits: [
    ['0, 1', 'depends on the command'],
    ['2', 'usage error; nothing was asked'],
    ['3', 'no answer: weftd is not running, access is denied, or it does not know the question'],
    ['4', 'not decided yet (diff): weftd waits for the store or the network configuration, and removes nothing']
  ],
  files: [[defaultSocketPath, 'the socket of weftd, for root only']],
  seeAlso: ['weftd(8)']
})
