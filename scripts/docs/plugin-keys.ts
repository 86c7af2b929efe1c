// Table for docs/configuration.md: the keys of each plugin in a CNI configuration list. A test gives each key an
// invalid value and expects an error with its path.
import { code, table } from './markdown.ts'

export type KeyRow = readonly [key: string, value: string, means: string]

const DNS: readonly KeyRow[] = [
  [
    'dns.nameservers',
    'list of strings',
    "the result's DNS servers; any key of `dns` replaces the DNS of the IPAM plugin"
  ],
  ['dns.domain', 'string', "the result's domain"],
  ['dns.search', 'list of strings', "the result's search domains"],
  ['dns.options', 'list of strings', "the result's resolver options"]
]
const ROUTES: readonly KeyRow[] = [
  ['ipam.routes[].dst', 'network', 'a route in the container'],
  ['ipam.routes[].gw', 'address', "its gateway; default: that of the container's address"],
  ['ipam.routes[].mtu', 'whole number', 'its MTU'],
  ['ipam.routes[].advmss', 'whole number', 'its advertised MSS'],
  ['ipam.routes[].priority', 'whole number', 'its metric'],
  ['ipam.routes[].table', 'whole number', 'its table'],
  ['ipam.routes[].scope', '0 to 255', 'its scope: 0 global, 253 link, 254 host']
]
const RANGES: readonly KeyRow[] = [
  ['ipam.ranges[][].subnet', 'network', 'a range of a set; the pod gets one address from each set'],
  ['ipam.ranges[][].rangeStart', 'address', 'its first address; default: the second of the subnet'],
  ['ipam.ranges[][].rangeEnd', 'address', 'its last address; default: the last but one of the subnet'],
  ['ipam.ranges[][].gateway', 'address', "the container's gateway; default: the first address of the subnet"]
]
const REQUESTED: readonly KeyRow[] = [
  ['runtimeConfig.ips', 'list of addresses', 'capability `ips`: addresses that the runtime requests'],
  ['args.cni.ips', 'list of addresses', 'the same from `args`']
]
const POOL: readonly KeyRow[] = [
  ['ipam.dataDir', 'absolute path', 'directory of reservations; default `/var/lib/cni/networks`'],
  ...RANGES,
  ...ROUTES,
  ...REQUESTED,
  ['runtimeConfig.ipRanges', 'list of lists of ranges', 'capability `ipRanges`: range sets before those of `ipam`']
]
const HOST_LOCAL: readonly KeyRow[] = [
  ...POOL,
  ['ipam.subnet', 'network', 'a single range, with `rangeStart`, `rangeEnd`, `gateway` beside it'],
  ['ipam.resolvConf', 'path', 'a resolv.conf(5) to read the DNS of the result from']
]
const LIMITS: readonly KeyRow[] = (['ingress', 'egress'] as const).flatMap((way): readonly KeyRow[] => {
  const direction = way === 'ingress' ? 'to' : 'from'
  return [
    [`${way}Rate`, 'bits per second, 8 or more', `limit of traffic ${direction} the container; 0: none`],
    [`${way}Burst`, 'bits', `burst size of traffic ${direction} the container; required with the rate`],
    [
      `runtimeConfig.bandwidth.${way}Rate`,
      'bits per second',
      'capability `bandwidth`; used only if none of the keys above is set'
    ],
    [`runtimeConfig.bandwidth.${way}Burst`, 'bits', 'the same']
  ]
})
const BANDWIDTH: readonly KeyRow[] = [
  ...LIMITS,
  ['shapedSubnets', 'list of prefixes', 'limit only traffic with these; also in `runtimeConfig.bandwidth`'],
  ['unshapedSubnets', 'list of prefixes', 'do not limit traffic with these; not together with `shapedSubnets`']
]
const PORTS: readonly KeyRow[] = [
  ['runtimeConfig.portMappings[].hostPort', '1 to 65535', 'capability `portMappings`: a port of this host'],
  ['runtimeConfig.portMappings[].containerPort', '1 to 65535', 'the port of the container that it maps to'],
  ['runtimeConfig.portMappings[].protocol', 'tcp, udp or sctp', 'its protocol'],
  ['runtimeConfig.portMappings[].hostIP', 'address', 'the address of this host; default: all']
]
const MAC: readonly KeyRow[] = [
  ['runtimeConfig.mac', 'MAC address', 'capability `mac`: the address of the interface'],
  ['args.cni.mac', 'MAC address', 'the same from `args`']
]
const VETH: readonly KeyRow[] = [
  ['bridge', 'name of a link', 'the bridge; default `cni0`'],
  [
    'mtu',
    '0 or 68 to 65535',
    'MTU; 0 or absent: that of the network. A larger one is used as it is, and packets between nodes may then be lost'
  ],
  ['hairpinMode', 'true, false', 'let the container reach itself through its own service or host port'],
  ['promiscMode', 'true, false', 'promiscuous mode of the bridge; not together with `hairpinMode`'],
  ['isDefaultGateway', 'true, false', 'default routes lead to the bridge']
]
const MASQUERADE_BACKEND: KeyRow = ['ipMasqBackend', 'iptables or nftables', 'no effect: Weft always uses nftables']
const MASQUERADE = 'masquerade traffic that leaves the pod network'

export const PLUGIN_KEYS: Readonly<Record<string, readonly KeyRow[]>> = {
  weft: [
    ['mode', 'bridge or routed', 'how the pod is attached; default: bridge if the bridge exists, otherwise --pod-mode'],
    ...VETH,
    ['ipMasq', 'true, false', `${MASQUERADE}; default: that of weftd's --ip-masq, or false with \`ipam.ranges\``],
    ['ipam.type', 'weft or host-local', 'weft allocates addresses itself; optional'],
    ...POOL,
    ...DNS,
    ...MAC,
    ...PORTS,
    ...BANDWIDTH
  ],
  loopback: [],
  bridge: [
    ...VETH,
    ['ipMasq', 'true, false', MASQUERADE],
    MASQUERADE_BACKEND,
    ['isGateway', 'true, false', "give the bridge the gateway's address"],
    [
      'forceAddress',
      'true, false',
      'replace another IPv4 address of the bridge, or an IPv6 address whose subnet overlaps'
    ],
    ['vlan', '0 to 4094', 'VLAN of the port, without a tag; the gateway is then on the interface BRIDGE.VLAN; 0: none'],
    [
      'vlanTrunk',
      'list of `id`, or `minID` and `maxID`',
      'VLANs of the port, with their tags; not together with `vlan`'
    ],
    [
      'preserveDefaultVlan',
      'true, false',
      'false: take the port out of the default VLAN of the bridge; default true; no effect without VLANs'
    ],
    ['enabledad', 'true, false', 'only false: true is rejected; addresses are set without duplicate address detection'],
    ['macspoofchk', 'true, false', 'drop frames from the container that do not have its own MAC address'],
    ['disableContainerInterface', 'true, false', 'keep the interface down; not together with `ipam`'],
    ['portIsolation', 'true, false', 'isolate the container from others on the bridge that have this key'],
    ['ipam.type', 'name of a plugin', '`host-local`, `static`, a third-party plugin, or none (layer 2)'],
    ...DNS,
    ...MAC
  ],
  ptp: [
    ['mtu', '0 or 68 to 65535', 'MTU; 0 or absent: 1500'],
    ['ipMasq', 'true, false', 'masquerade traffic that leaves the node'],
    MASQUERADE_BACKEND,
    ['ipam.type', 'name of a plugin', '`host-local`, `static`, or a third-party plugin; required'],
    ...DNS
  ],
  macvlan: [
    ['master', 'name of a link', "the parent device; default: that of this host's default route"],
    ['mode', 'bridge, private, vepa or passthru', 'macvlan mode; default bridge'],
    ['mtu', "0 or 68 to the device's", "MTU; 0 or absent: the device's"],
    ['mac', 'MAC address', 'the address of the interface; default: derived from the container id'],
    ['linkInContainer', 'true, false', 'the parent device is in the container; requires `master`'],
    ['bcqueuelen', 'whole number', "broadcast queue length; 0 or absent: the kernel's default"],
    ['ipam.type', 'name of a plugin', '`host-local`, `static`, a third-party plugin such as dhcp, or none (layer 2)'],
    ...DNS,
    ...MAC
  ],
  'host-local': HOST_LOCAL,
  static: [
    ['ipam.addresses[].address', 'address with prefix length', 'an address of the container'],
    ['ipam.addresses[].gateway', 'address', 'its gateway'],
    ...ROUTES,
    ...DNS.map(([key, value, means]): KeyRow => [`ipam.${key}`, value, means]),
    ['runtimeConfig.ips', 'list of addresses with prefix length', 'capability `ips`: replaces all others'],
    ['args.cni.ips', 'list of addresses with prefix length', 'the same from `args`']
  ],
  tuning: [
    ['sysctl', 'object of strings', 'sysctls below `net.` in the container; `IFNAME` is replaced by the interface'],
    ['mac', 'MAC address', 'the address of the interface'],
    ['mtu', '0 or 68 to 65535', 'its MTU'],
    ['dataDir', 'absolute path', 'directory for the old settings until DEL; default `/run/cni/tuning`'],
    ['promisc', 'true, false', 'promiscuous mode; false changes nothing'],
    ['allmulti', 'true, false', 'receive all multicast frames, or not'],
    ['txQLen', 'whole number', 'transmit queue length'],
    ['runtimeConfig.mac', 'MAC address', 'capability `mac`'],
    ['args.cni.sysctl', 'object of strings', 'as `sysctl`; `args` takes precedence'],
    ['args.cni.mac', 'MAC address', 'as `mac`'],
    ['args.cni.mtu', '0 or 68 to 65535', 'as `mtu`'],
    ['args.cni.promisc', 'true, false', 'as `promisc`'],
    ['args.cni.allmulti', 'true, false', 'as `allmulti`'],
    ['args.cni.txQLen', 'whole number', 'as `txQLen`']
  ],
  portmap: [
    [
      'snat',
      'true, false',
      'masquerade traffic from a pod to its own host port, and from this host to any; default true'
    ],
    ['masqAll', 'true, false', 'masquerade all traffic to host ports'],
    ['backend', 'iptables or nftables', 'ignored'],
    ['markMasqBit', '0 to 31', 'ignored; not together with `externalSetMarkChain`'],
    ['externalSetMarkChain', 'string', 'ignored'],
    [
      'conditionsV4',
      'list of strings',
      'map the port only for IPv4 packets that match: `-s`, `-d`, `-i` of iptables, with `!` before them; or `ip saddr`, `ip daddr`, `iifname` of nft, with `!=`. Other conditions are rejected by name, as are more than four addresses and devices'
    ],
    ['conditionsV6', 'list of strings', 'the same for IPv6 packets, with `ip6` instead of `ip`'],
    ...PORTS
  ],
  bandwidth: [...BANDWIDTH],
  firewall: [
    [
      'iptablesAdminChainName',
      'name of an iptables chain',
      "the administrator's chain, called first for forwarded packets and made if it is missing; default: `CNI-ADMIN`, called where it exists"
    ],
    [
      'ingressPolicy',
      'open, same-bridge or isolated',
      'same-bridge: no routing from its bridge to other bridges with this policy; isolated: also no traffic between containers with it on one bridge'
    ],
    ['backend', 'iptables or firewalld', 'only iptables, which has no effect: firewalld is rejected'],
    ['firewalldZone', 'name of a zone', 'rejected, except beside `backend: iptables`, where it has no effect']
  ],
  flannel: [
    ['subnetFile', 'absolute path', 'default `/run/flannel/subnet.env`'],
    ['dataDir', 'absolute path', 'directory for delegated configurations until DEL; default `/var/lib/cni/flannel`'],
    ['delegate', 'object', "keys of the plugin that makes the interface; they take precedence over flannel's"],
    ['delegate.type', 'name of a plugin', 'default `bridge`'],
    ['ipam', 'object', 'keys of its IPAM plugin'],
    ['ipam.type', 'name of a plugin', 'default `host-local`'],
    ['ipam.routes', 'list of routes', 'routes in addition to those to the pod network']
  ]
}

export const blocks = {
  plugins: () =>
    Object.entries(PLUGIN_KEYS)
      .map(([type, keys]) => {
        const rows = keys.map(([key, value, means]) => [code(key), value, means])
        return `### ${type}\n\n${rows.length === 0 ? 'No keys.' : table([['key', 'value', 'meaning'], ...rows])}`
      })
      .join('\n\n')
}
