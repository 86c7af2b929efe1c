// What weftd and weftctl are, in the words from which help, manual pages and completions are printed.
import { defaultSocketPath } from '../../plugins/protocol.ts'
import { type Flags, text, toggle, whole } from '../cli/flag-parser.ts'
import { GROUPS, PREFIXES, FLAGS as WEFTD_FLAGS } from '../cli/flag-table.ts'
import type { Described, Program } from './command.ts'

export const WEFTCTL_FLAGS = {
  socket: {
    group: 'flags',
    reader: text('FILE'),
    default: defaultSocketPath,
    help: "weftd's socket, weftd.sock in its --state-dir; also WEFTCTL_SOCKET"
  },
  timeout: {
    group: 'flags',
    reader: whole('SECONDS', 1, 3600),
    default: '10',
    help: 'how long to wait for the answer'
  },
  node: {
    group: 'flags',
    reader: text('NODE'),
    help: 'ask the weftd of this node of a cluster, by kubectl; kubectl weft finds out itself where a pod is'
  },
  context: { group: 'flags', reader: text('NAME'), help: 'context of kubectl for that' },
  json: { group: 'flags', reader: toggle, default: 'false', help: 'print the answer as JSON' },
  help: { group: 'flags', reader: toggle, default: 'false', help: 'print this text' },
  version: { group: 'flags', reader: toggle, default: 'false', help: 'print the version' }
} as const satisfies Flags

export const WEFTCTL_PREFIXES = ['WEFTCTL_'] as const

const WEFTD_COMMANDS: Program['commands'] = {
  install: {
    about: 'put the plugin executables where the runtime looks for them; weftd install --help lists its flags'
  },
  clean: {
    about:
      'take away what Weft has put on this machine, with the flags that weftd was run with; weftd clean --help says what stays'
  },
  completion: {
    about: 'print completion for a shell',
    operands: [{ name: 'SHELL', oneOf: ['bash', 'zsh', 'fish'] }]
  },
  man: { about: 'print this manual page' }
}

export const WEFTD: Program = {
  name: 'weftd',
  aliases: [],
  about: 'lease this node a subnet and join it with those of the other nodes',
  description: [
    'weftd leases this node a subnet from etcd, the Kubernetes API or a file, makes the kernel of this machine hold what reaches the subnets of the other nodes, and answers the CNI plugins in /opt/cni/bin.',
    'Routes and pods stay as they are while weftd is not running. It needs root. Its state is told by weftctl(8), on /readyz and in its log, with the same words.'
  ],
  flags: WEFTD_FLAGS,
  groups: GROUPS,
  prefixes: PREFIXES,
  commands: WEFTD_COMMANDS,
  exits: [
    ['0', 'it was stopped by SIGTERM or SIGINT'],
    ['1', 'it can not go on; the log says why'],
    ['2', 'a flag or a variable is wrong; nothing was done']
  ],
  files: [
    [defaultSocketPath, 'the socket for plugins and weftctl, for root only'],
    ['/run/flannel/subnet.env', "subnet and MTU, for Docker and flannel's plugin"],
    ['/var/lib/cni/networks', 'reserved pod addresses, one folder for each CNI network'],
    ['/var/lib/weft/leases.db', 'leases of --store embedded']
  ],
  seeAlso: ['weftctl(8)', 'ip(8)', 'bridge(8)', 'nft(8)', 'tc(8)']
}

/** `commands` come in from run.ts, since two of them print what is described here. */
export const weftctl = (commands: Readonly<Record<string, Described>>): Program => ({
  name: 'weftctl',
  aliases: ['kubectl-weft'],
  about: 'ask the weftd of this node what it holds, what is wrong, and why',
  description: [
    'weftctl asks the weftd of this node by its socket and changes nothing. Answers are tables for people, or JSON with --json.',
    'Installed as kubectl-weft in a directory of PATH it is also "kubectl weft". With --node it has the weft pod of that node asked, by kubectl exec; "kubectl weft why pod NAMESPACE/NAME" needs no --node.'
  ],
  flags: WEFTCTL_FLAGS,
  groups: { flags: 'Flags' },
  prefixes: WEFTCTL_PREFIXES,
  commands,
  exits: [
    ['0, 1', 'as the command says'],
    ['2', 'wrong words; nothing was asked'],
    ['3', 'there is no answer: weftd does not run, may not be asked, or does not understand']
  ],
  files: [[defaultSocketPath, 'the socket of weftd, for root only']],
  seeAlso: ['weftd(8)']
})
