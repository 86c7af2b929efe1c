// The flags of `weftctl migrate`, in one table with those of weftctl.
import { type Flags, text, toggle, whole } from './flag-parser.ts'

const directory = text('DIR', 'a path that begins with /', /^\/./)
const command = (what: string) =>
  ({
    group: 'migrate',
    reader: text('COMMAND', 'a program and its arguments, separated by spaces', /^\S/),
    help: `${what}, where no systemd unit does it: a program and its arguments, separated by spaces; it is run without a shell and must return`
  }) as const

export const MIGRATE_FLAGS = {
  'stop-flanneld': command('stops flanneld and keeps it from starting again'),
  'start-flanneld': command('starts flanneld again'),
  'start-weftd': command(
    'starts weftd, with the settings as variables WEFTD_… and flags that are repeated in WEFT_OPTIONS'
  ),
  'stop-weftd': command('stops weftd'),
  'cni-conf-dir': {
    group: 'migrate',
    reader: directory,
    default: '/etc/cni/net.d',
    help: 'directory of the CNI configuration that the runtime reads'
  },
  'cni-bin-dir': {
    group: 'migrate',
    reader: directory,
    default: '/opt/cni/bin',
    help: 'directory where the runtime looks for plugins'
  },
  'cni-source-dir': {
    group: 'migrate',
    reader: directory,
    default: '/usr/lib/weft/cni',
    help: "directory with Weft's plugins, to install them from"
  },
  'migrate-dir': {
    group: 'migrate',
    reader: directory,
    default: '/var/lib/cni/weft-migrate',
    help: 'directory of the record of a move, and of what it replaced, for the way back'
  },
  manifests: {
    group: 'migrate',
    reader: text('DIR|FILE|URL'),
    default: 'deploy/',
    help: "kubectl weft migrate apply: Weft's manifests, as kubectl apply -f takes them"
  },
  'subnet-file': {
    group: 'migrate',
    reader: text('FILE'),
    default: '/run/flannel/subnet.env',
    help: "file with this node's subnet, where flanneld has no flag for it"
  },
  wait: {
    group: 'migrate',
    reader: whole('SECONDS', 1, 3600),
    default: '120',
    help: 'seconds for the new daemon to be ready and to reach the other nodes, on each node'
  },
  'ignore-lost': {
    group: 'migrate',
    reader: toggle,
    default: 'false',
    help: 'go on although some nodes are not reached, as when they were down before'
  }
} as const satisfies Flags
