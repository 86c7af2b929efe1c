// The table of weftd's flags: the source of the parser, --help, the documents and the type Options.
import { type Ip, isGlobalUnicast, isMulticast, type PerFamily } from '../../ipam/address.ts'
import type { Flag, Flags, Reader } from './flag-parser.ts'
import { commaList, ip, oneOf, repeated, type SetBy, text, toggle, type Values, whole } from './flag-parser.ts'

/** The headings of --help, in order. */
export const GROUPS = {
  store: 'Lease store',
  etcd: 'etcd',
  kubernetes: 'Kubernetes',
  interface: 'Interface to the other nodes',
  network: 'Pods, routes and firewall',
  files: 'Files',
  health: 'Health, log and help',
  ignored: "flanneld's, without effect"
} as const

const path = text('FILE')
const directory = text('DIR', 'a path that begins with /', /^\/./)
/** Without a scheme as etcd's and Kubernetes' clients take it. */
const url = text(
  'URL',
  'a URL that begins with http:// or https://, or HOST:PORT',
  /^(https?:\/\/[^\s,/]+[^\s,]*|([^\s,/:[\]]+|\[[\da-f:.]+\]):\d+)$/i
)
/** Its syntax is checked when it is compiled (daemon/base/go-regexp.ts). */
const pattern = text('REGEX', 'a regular expression in the syntax of Go (RE2)')
const publicAddress = (family: 4 | 6) =>
  ip(
    'IP',
    `an IPv${family} address that other nodes can send to`,
    (address) => address.family === family && isGlobalUnicast(address)
  )

const ignored = (reader: Reader<unknown>) =>
  ({
    group: 'ignored',
    reader,
    help: 'accepted for command lines of flanneld, with a warning',
    ignored: 'weftd logs to standard error; --v sets how much'
  }) as const

/**
 * Names, meanings and defaults are flanneld's where flanneld has the flag; node-name, pod-mode, firewall,
 * allow-extension, state-dir, store and embedded-path are Weft's own.
 */
export const FLAGS = {
  store: {
    group: 'store',
    reader: oneOf('etcd', 'embedded', 'kubernetes'),
    default: 'etcd',
    help: 'where leases are kept: etcd (v3 API), an SQLite file shared by daemons on one machine, or the Kubernetes API'
  },
  'embedded-path': {
    group: 'store',
    reader: path,
    default: '/var/lib/weft/leases.db',
    help: 'file of --store embedded; all daemons that use the same file form one network'
  },
  'node-name': {
    group: 'store',
    reader: text('NAME', 'a name without spaces and slashes', /^[^\s/]+$/),
    help: 'name of this node; default: the node of this pod in Kubernetes, otherwise the host name'
  },
  'subnet-lease-renew-margin': {
    group: 'store',
    reader: whole('MINUTES', 1, 1439),
    default: '60',
    help: 'minutes before its expiry at which the lease is renewed'
  },

  'etcd-endpoints': {
    group: 'etcd',
    reader: commaList(url),
    default: 'http://127.0.0.1:4001,http://127.0.0.1:2379',
    help: 'URLs of the etcd endpoints'
  },
  'etcd-prefix': {
    group: 'etcd',
    reader: text('PREFIX'),
    default: '/coreos.com/network',
    help: 'prefix of all keys in etcd'
  },
  'etcd-keyfile': { group: 'etcd', reader: path, help: 'private key of the client certificate, PEM' },
  'etcd-certfile': { group: 'etcd', reader: path, help: 'client certificate, PEM' },
  'etcd-cafile': { group: 'etcd', reader: path, help: 'CA certificate that signed the certificate of etcd, PEM' },
  'etcd-username': { group: 'etcd', reader: text('NAME'), help: 'etcd user name' },
  'etcd-password': {
    group: 'etcd',
    reader: text('PASSWORD'),
    secret: true,
    help: 'etcd password; prefer the variable WEFTD_ETCD_PASSWORD, since every user of this machine can read command lines'
  },

  'kube-subnet-mgr': { group: 'kubernetes', reader: toggle, default: 'false', help: 'the same as --store kubernetes' },
  'kube-api-url': {
    group: 'kubernetes',
    reader: url,
    help: 'URL of the API server; default: from the kubeconfig, or that of the cluster this pod runs in'
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
      'a DNS name with an optional path, such as flannel.alpha.coreos.com',
      /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(\/[-\w.]*)?$/i
    ),
    default: 'flannel.alpha.coreos.com',
    help: 'prefix of the node annotations'
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
    help: 'clear the node condition NetworkUnavailable once the network is up'
  },
  'network-policy-enforced': {
    group: 'kubernetes',
    reader: toggle,
    default: 'false',
    help: 'another program enforces NetworkPolicies; otherwise one node adds a warning event to each policy that it is not enforced'
  },
  'kube-daemonset': {
    group: 'kubernetes',
    reader: text('NAMESPACE/NAME', 'NAMESPACE/NAME of a DaemonSet', /^[a-z0-9][-a-z0-9.]*\/[a-z0-9][-a-z0-9.]*$/),
    help: 'the DaemonSet this weftd belongs to; when weftd stops because it was deleted, it removes everything that belongs to Weft from the node'
  },

  iface: {
    group: 'interface',
    reader: repeated(text('NAME|IP')),
    help: 'interface to use, by name, alternative name or address; the first that exists wins. Default: the interface of the default route, or without one the only interface with a global address'
  },
  'iface-regex': {
    group: 'interface',
    reader: repeated(pattern),
    help: 'regular expression that the name or an address of the interface must match; tried after --iface'
  },
  'iface-can-reach': {
    group: 'interface',
    reader: ip('IP', 'an address that packets can be sent to', (address) => !isMulticast(address)),
    help: 'use the interface through which the kernel reaches this address; tried after --iface-regex'
  },
  'public-ip': {
    group: 'interface',
    reader: publicAddress(4),
    help: 'IPv4 address that the other nodes send to; default: one of the interface (see "The published address" in docs/configuration.md)'
  },
  'public-ipv6': {
    group: 'interface',
    reader: publicAddress(6),
    help: 'IPv6 address that the other nodes send to; default: one of the interface, as for IPv4'
  },

  'pod-mode': {
    group: 'network',
    reader: oneOf('auto', 'bridge', 'routed'),
    default: 'auto',
    help: 'how pods are attached where there is no bridge yet: to a bridge, or each by its own route; auto: as the pods that are there, otherwise to a bridge'
  },
  'ip-masq': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'masquerade traffic that leaves the pod network'
  },
  'ip-masq-fully-random-disable': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'masquerade without random source ports'
  },
  firewall: {
    group: 'network',
    reader: oneOf('auto', 'nftables', 'iptables'),
    default: 'auto',
    help: 'where the chains for masquerading and forwarding are; auto: nftables, or iptables where the kernel has no masquerading for nftables. Host ports and rules of single pods are always in nftables'
  },
  'iptables-forward-rules': {
    group: 'network',
    reader: toggle,
    default: 'true',
    help: 'make the firewall accept forwarded packets from and to pods'
  },
  'iptables-resync': {
    group: 'network',
    reader: whole('SECONDS', 1, 86_400),
    default: '5',
    help: 'seconds between checks of legacy iptables tables, which send no notifications; changes that the kernel does notify are repaired at once, and everything is compared every minute'
  },
  'udp-proxy': {
    group: 'network',
    reader: oneOf('start', 'external'),
    default: 'start',
    help: 'who starts weftd udp-proxy, which the udp backend needs on kernels without FOU: weftd, or something else (its systemd unit, its container)'
  },
  'wireguard-go': {
    group: 'network',
    reader: text('FILE', 'a path that begins with /', /^\//),
    help: 'wireguard-go, which serves the wireguard backend where the kernel has no WireGuard; default: none, and such a kernel is refused'
  },
  'ip-blackhole-route': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: "drop packets to unused addresses of this node's subnet instead of sending them to the default route"
  },
  'allow-extension': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'run the commands of Backend.Type extension on this node, as root: whoever may write the network configuration is trusted with that'
  },
  'allow-extension-shell': {
    group: 'network',
    reader: toggle,
    default: 'false',
    help: 'with --allow-extension: run them by sh; otherwise they are split into words, and shell syntax is refused'
  },

  'vanished-grace': {
    group: 'network',
    reader: whole('SECONDS', 0, 86_400),
    default: '60',
    help: 'seconds for which the addresses of a pod stay reserved after its network namespace vanished, in case the runtime still sends DEL'
  },

  'subnet-file': {
    group: 'files',
    reader: path,
    default: '/run/flannel/subnet.env',
    help: 'file to which the subnet and MTU of this node are written for other programs'
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
    help: 'directory to write 10-weft.conflist to once pods can be served, usually /etc/cni/net.d; default: none is written'
  },
  'cni-conf-source': {
    group: 'files',
    reader: path,
    help: 'file to take the content of 10-weft.conflist from, watched for changes; default: the network cbr0 with the plugin weft'
  },
  'cni-bin-dir': {
    group: 'files',
    reader: directory,
    help: 'directory of the plugins; a weftd that cleans up its node removes its own from there; default: they stay (weftd clean: /opt/cni/bin)'
  },

  'healthz-ip': {
    group: 'health',
    reader: ip('IP', 'an address of this machine', (address) => !isMulticast(address), { localhost: '127.0.0.1' }),
    default: '0.0.0.0',
    help: 'address to serve /healthz, /readyz and /metrics on'
  },
  'healthz-port': {
    group: 'health',
    reader: whole('PORT', 0, 65_535),
    default: '0',
    help: 'port to serve them on; 0 is off'
  },
  v: {
    group: 'health',
    reader: whole('LEVEL', 0, 2 ** 31 - 1),
    default: '0',
    help: 'log verbosity: 0 logs changes, 1 and above also what was compared'
  },
  help: { group: 'health', reader: toggle, default: 'false', help: 'print this text' },
  version: { group: 'health', reader: toggle, default: 'false', help: 'print the version' },

  vmodule: ignored(text('PATTERN=LEVEL,…')),
  log_backtrace_at: ignored(text('FILE:LINE')),
  logtostderr: ignored(toggle),
  alsologtostderr: ignored(toggle),
  stderrthreshold: ignored(text('LEVEL')),
  log_dir: ignored(text('DIR'))
} as const satisfies Flags & Record<string, Flag<unknown> & { readonly group: keyof typeof GROUPS }>

/** Prefixes of environment variables by precedence: Weft's own, then flanneld's. */
export const PREFIXES = ['WEFTD_', 'FLANNELD_'] as const

type Ignored = 'vmodule' | 'log_backtrace_at' | 'logtostderr' | 'alsologtostderr' | 'stderrthreshold' | 'log_dir'

export type Options = Omit<
  Values<typeof FLAGS>,
  'publicIp' | 'publicIpv6' | 'kubeSubnetMgr' | 'help' | 'version' | Ignored
> & {
  /** The addresses that --public-ip and --public-ipv6 name. */
  readonly publicIp: PerFamily<Ip>
  /** The flag or variable that set each option. */
  readonly setBy: SetBy
}
