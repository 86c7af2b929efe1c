// The table of weftd's flags: from it the command line and the environment are read, --help and the documents printed, and the type Options made. Pure.
import { type Ip, isGlobalUnicast, isMulticast, type PerFamily } from '../../ipam/address.ts'
import type { Flag, Flags } from './flag-parser.ts'
import { commaList, type Given, ip, oneOf, repeated, text, toggle, type Values, whole } from './flag-parser.ts'

/** The headings of --help, in order. */
export const GROUPS = {
  store: 'Where leases are kept',
  etcd: 'etcd',
  kubernetes: 'Kubernetes',
  interface: 'The link to the other nodes',
  network: 'Pods, routes and firewall',
  files: 'Files',
  telling: 'Health, log and help'
} as const

const path = text('FILE')
const directory = text('DIR', 'a path that begins with /', /^\/./)
const url = text('URL', 'a URL that begins with http:// or https://', /^https?:\/\/[^\s,/]+/)
const pattern = text('REGEX', 'a regular expression')
const regex = { ...pattern, read: (texts: readonly string[]) => (compiles(texts[0]) ? pattern.read(texts) : undefined) }
const publicAddress = (family: 4 | 6) =>
  ip(
    'IP',
    `an IPv${family} address that other nodes can send to`,
    (address) => address.family === family && isGlobalUnicast(address)
  )

function compiles(source: string | undefined): boolean {
  try {
    new RegExp(source ?? '')
    return true
  } catch {
    return false
  }
}

/** Names, meanings and defaults are flanneld's where flanneld has the flag; node-name, pod-mode, state-dir, store and embedded-path are ours. */
export const FLAGS = {
  store: {
    group: 'store',
    reader: oneOf('etcd', 'embedded', 'kubernetes'),
    default: 'etcd',
    help: 'what keeps the leases: an etcd (v3 API), a SQLite file for daemons on one machine, or the Kubernetes API'
  },
  'embedded-path': {
    group: 'store',
    reader: path,
    default: '/var/lib/weft/leases.db',
    help: 'file of --store embedded; all daemons that name the same file are one network'
  },
  'node-name': {
    group: 'store',
    reader: text('NAME', 'a name without spaces and slashes', /^[^\s/]+$/),
    help: "this node's name; default: the node of this pod in Kubernetes, else the host name"
  },
  'subnet-lease-renew-margin': {
    group: 'store',
    reader: whole('MINUTES', 1, 1439),
    default: '60',
    help: 'minutes before its end at which our lease is renewed'
  },

  'etcd-endpoints': {
    group: 'etcd',
    reader: commaList(url),
    default: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
    help: 'where etcd answers'
  },
  'etcd-prefix': {
    group: 'etcd',
    reader: text('PREFIX', 'a path that begins with /', /^\/[^/]/),
    default: '/coreos.com/network',
    help: 'prefix of all our keys'
  },
  'etcd-keyfile': { group: 'etcd', reader: path, help: 'private key of the client certificate, PEM' },
  'etcd-certfile': { group: 'etcd', reader: path, help: 'client certificate, PEM' },
  'etcd-cafile': { group: 'etcd', reader: path, help: "authority that signed etcd's certificate, PEM" },
  'etcd-username': { group: 'etcd', reader: text('NAME'), help: 'user name' },
  'etcd-password': {
    group: 'etcd',
    reader: text('PASSWORD'),
    secret: true,
    help: 'password; better given as WEFTD_ETCD_PASSWORD, since every user of this machine can read a command line'
  },

  'kube-subnet-mgr': { group: 'kubernetes', reader: toggle, default: 'false', help: 'the same as --store kubernetes' },
  'kube-api-url': {
    group: 'kubernetes',
    reader: url,
    help: 'the API server; default: from the kubeconfig, or the one that this pod belongs to'
  },
  'kubeconfig-file': {
    group: 'kubernetes',
    reader: path,
    help: 'kubeconfig; default: the service account of this pod'
  },
  'kube-annotation-prefix': {
    group: 'kubernetes',
    reader: text(
      'PREFIX',
      'a DNS name with an optional path, as flannel.alpha.coreos.com',
      /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(\/[-\w.]*)?$/i
    ),
    default: 'flannel.alpha.coreos.com',
    help: 'prefix of the annotations on nodes'
  },
  'net-config-path': {
    group: 'kubernetes',
    reader: path,
    default: '/etc/kube-flannel/net-conf.json',
    help: 'file with the network configuration'
  },
  'set-node-network-unavailable': {
    group: 'kubernetes',
    reader: toggle,
    default: 'true',
    help: "clear the node's condition NetworkUnavailable once the network is up"
  },
  'network-policy-enforced': {
    group: 'kubernetes',
    reader: toggle,
    default: 'false',
    help: 'another program enforces NetworkPolicies; otherwise one node warns by an event on each of them that nobody does'
  },
  'kube-daemonset': {
    group: 'kubernetes',
    reader: text('NAMESPACE/NAME', 'NAMESPACE/NAME of a DaemonSet', /^[a-z0-9][-a-z0-9.]*\/[a-z0-9][-a-z0-9.]*$/),
    help: 'the DaemonSet this weftd belongs to; a weftd that ends after its deletion takes all that is its own off the node'
  },

  iface: {
    group: 'interface',
    reader: repeated(text('NAME|IP')),
    help: 'link to use, by its name or one of its addresses; the first that exists wins. Default: the link of the default route'
  },
  'iface-regex': {
    group: 'interface',
    reader: repeated(regex),
    help: 'links to use, by a regular expression on names or addresses; looked at after --iface'
  },
  'iface-can-reach': {
    group: 'interface',
    reader: ip('IP', 'an address that packets can be sent to', (address) => !isMulticast(address)),
    help: 'use the link by which the kernel reaches this address; looked at after --iface-regex'
  },
  'public-ip': {
    group: 'interface',
    reader: publicAddress(4),
    help: 'IPv4 address that the other nodes send to; default: the first of the link'
  },
  'public-ipv6': {
    group: 'interface',
    reader: publicAddress(6),
    help: 'IPv6 address that the other nodes send to; default: the first of the link'
  },

  'pod-mode': {
    group: 'network',
    reader: oneOf('auto', 'bridge', 'routed'),
    default: 'auto',
    help: 'how pods hang on this node: on a bridge, or each by a route of its own; auto keeps the bridge where there is one'
  },
  'ip-masq': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'masquerade packets that leave the pod network'
  },
  'ip-masq-fully-random-disable': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'masquerade without random source ports'
  },
  'iptables-forward-rules': {
    group: 'network',
    reader: toggle,
    default: 'true',
    help: 'see to it that the firewall forwards packets from and to pods'
  },
  'iptables-resync': {
    group: 'network',
    reader: whole('SECONDS', 1, 86_400),
    default: '5',
    help: 'seconds between two looks at legacy iptables tables, which tell nobody of a change; what the kernel tells is put right at once, and all is compared every minute'
  },
  'ip-blackhole-route': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: "drop packets to addresses of this node's subnet that no pod has, instead of sending them to the default route"
  },

  'vanished-grace': {
    group: 'network',
    reader: whole('SECONDS', 0, 86_400),
    default: '60',
    help: 'seconds for which the addresses of a pod whose network namespace vanished stay reserved for the DEL of its runtime'
  },

  'subnet-file': {
    group: 'files',
    reader: path,
    default: '/run/flannel/subnet.env',
    help: 'where our subnet and MTU are written for others'
  },
  'state-dir': {
    group: 'files',
    reader: directory,
    default: '/run/weft',
    help: 'directory of the socket weftd.sock; only root can enter it'
  },
  'cni-conf-dir': {
    group: 'files',
    reader: directory,
    help: 'directory where 10-weft.conflist is written once pods can be served, usually /etc/cni/net.d; default: none is written'
  },
  'cni-conf-source': {
    group: 'files',
    reader: path,
    help: 'file with the content of 10-weft.conflist, followed when it changes; default: the network cbr0 with the plugin weft'
  },
  'cni-bin-dir': {
    group: 'files',
    reader: directory,
    help: 'directory of the plugins, from which a weftd that leaves the node clean takes its own; default: they stay (weftd clean: /opt/cni/bin)'
  },

  'healthz-ip': {
    group: 'telling',
    reader: ip('IP', 'an address of this machine', (address) => !isMulticast(address)),
    default: '0.0.0.0',
    help: 'address of /healthz, /readyz and /metrics'
  },
  'healthz-port': {
    group: 'telling',
    reader: whole('PORT', 0, 65_535),
    default: '0',
    help: 'port of the same; 0 is off'
  },
  v: {
    group: 'telling',
    reader: whole('LEVEL', 0, 10),
    default: '0',
    help: 'verbosity: 0 tells what changed, 1 and above also what was compared'
  },
  help: { group: 'telling', reader: toggle, default: 'false', help: 'print this text' },
  version: { group: 'telling', reader: toggle, default: 'false', help: 'print the version' }
} as const satisfies Flags & Record<string, Flag<unknown> & { readonly group: keyof typeof GROUPS }>

/** In this order: our own name for a variable, then flanneld's. */
export const PREFIXES = ['WEFTD_', 'FLANNELD_'] as const

export type Options = Omit<Values<typeof FLAGS>, 'publicIp' | 'publicIpv6' | 'kubeSubnetMgr' | 'help' | 'version'> & {
  /** The addresses that --public-ip and --public-ipv6 name. */
  readonly publicIp: PerFamily<Ip>
  /** By which flag or variable each was given. */
  readonly given: Given
}
