// The keys of each plugin in a CNI configuration list: what each may be, and what it does. A test gives every one a wrong value and sees it refused by its path.
import { code, table } from './markdown.ts'

export type KeyRow = readonly [key: string, value: string, means: string]

const DNS: readonly KeyRow[] = [
  [
    'dns.nameservers',
    'list of texts',
    "the result's DNS servers; with any key of `dns` the IPAM plugin's word does not count"
  ],
  ['dns.domain', 'text', "the result's domain"],
  ['dns.search', 'list of texts', "the result's search domains"],
  ['dns.options', 'list of texts', "the result's resolver options"]
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
  ['ipam.ranges[][].subnet', 'network', 'a range of a set; one address comes from each set'],
  ['ipam.ranges[][].rangeStart', 'address', 'its first address; default: the second of the subnet'],
  ['ipam.ranges[][].rangeEnd', 'address', 'its last address; default: the last but one'],
  ['ipam.ranges[][].gateway', 'address', "the container's gateway; default: the first address of the subnet"]
]
const REQUESTED: readonly KeyRow[] = [
  ['runtimeConfig.ips', 'list of addresses', 'capability `ips`: addresses that the runtime wants'],
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
  ['ipam.resolvConf', 'path', 'a resolv.conf(5) from which the DNS of the result is read']
]
const LIMITS: readonly KeyRow[] = (['ingress', 'egress'] as const).flatMap((way): readonly KeyRow[] => {
  const direction = way === 'ingress' ? 'to' : 'from'
  return [
    [`${way}Rate`, 'bits a second, 8 or more', `limit of what goes ${direction} the container; 0: none`],
    [`${way}Burst`, 'bits', `what may go ${direction} it at once; needed with the rate`],
    [`runtimeConfig.bandwidth.${way}Rate`, 'bits a second', 'capability `bandwidth`; the keys above win as a whole'],
    [`runtimeConfig.bandwidth.${way}Burst`, 'bits', 'the same']
  ]
})
const BANDWIDTH: readonly KeyRow[] = [
  ...LIMITS,
  [
    'shapedSubnets',
    'list of prefixes',
    'only what is exchanged with these is limited; also in `runtimeConfig.bandwidth`'
  ],
  ['unshapedSubnets', 'list of prefixes', 'what is exchanged with these is not limited; not together with the former']
]
const PORTS: readonly KeyRow[] = [
  ['runtimeConfig.portMappings[].hostPort', '1 to 65535', 'capability `portMappings`: a port of this host'],
  ['runtimeConfig.portMappings[].containerPort', '1 to 65535', 'the port of the container that it leads to'],
  ['runtimeConfig.portMappings[].protocol', 'tcp, udp or sctp', 'its protocol'],
  ['runtimeConfig.portMappings[].hostIP', 'address', 'the address of this host; default: every one']
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
    "MTU; 0 or absent: as the network has it. One above the network's is taken as it is given, and packets between nodes may then be lost"
  ],
  ['hairpinMode', 'true, false', 'the container reaches itself through its own service or host port'],
  ['promiscMode', 'true, false', 'the bridge takes frames for every address; not together with `hairpinMode`'],
  ['isDefaultGateway', 'true, false', 'default routes go to the bridge']
]
const MASQUERADE = "what leaves the pod network gets this node's address"

export const PLUGIN_KEYS: Readonly<Record<string, readonly KeyRow[]>> = {
  weft: [
    [
      'mode',
      'bridge or routed',
      'how the pod hangs on the node; default: --pod-mode, or bridge where the bridge exists'
    ],
    ...VETH,
    ['ipMasq', 'true, false', `${MASQUERADE}; default: as weftd's --ip-masq says, with ranges of its own false`],
    ['ipam.type', 'weft or host-local', 'weft gives addresses itself; may be left out'],
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
    ['isGateway', 'true, false', "the bridge bears the gateway's address"],
    ['forceAddress', 'true, false', 'another IPv4 address of the bridge gives way'],
    ['vlan', '0 to 4094', 'only 0: others are refused, give each VLAN a bridge of its own'],
    ['vlanTrunk', 'list', 'only an empty one: others are refused'],
    ['macspoofchk', 'true, false', "only frames with the container's own hardware address are taken from it"],
    ['disableContainerInterface', 'true, false', 'the interface stays down; not together with `ipam`'],
    ['portIsolation', 'true, false', 'it reaches no other container of the bridge that has it too'],
    ['ipam.type', 'name of a plugin', "`host-local`, `static`, any other's program, or none (layer 2)"],
    ...DNS,
    ...MAC
  ],
  ptp: [
    ['mtu', '0 or 68 to 65535', 'MTU; 0 or absent: 1500'],
    ['ipMasq', 'true, false', "what leaves gets this node's address"],
    ['ipam.type', 'name of a plugin', "`host-local`, `static`, or any other's program; needed"],
    ...DNS
  ],
  macvlan: [
    ['master', 'name of a link', "the device it stands on; default: that of this host's default route"],
    ['mode', 'bridge, private, vepa or passthru', 'who hears whom among those on one device; default bridge'],
    ['mtu', "0 or 68 to the device's", "MTU; 0 or absent: the device's"],
    ['mac', 'MAC address', "the address of the interface; default: from the container's name"],
    ['linkInContainer', 'true, false', 'the device is in the container; `master` is needed then'],
    ['bcqueuelen', 'whole number', "frames that may wait to be handed to all; 0 or absent: the kernel's choice"],
    ['ipam.type', 'name of a plugin', "`host-local`, `static`, any other's program, as dhcp, or none (layer 2)"],
    ...DNS,
    ...MAC
  ],
  'host-local': HOST_LOCAL,
  static: [
    ['ipam.addresses[].address', 'address with prefix length', 'an address of the container'],
    ['ipam.addresses[].gateway', 'address', 'its gateway'],
    ...ROUTES,
    ...DNS.map(([key, value, means]): KeyRow => [`ipam.${key}`, value, means]),
    ['runtimeConfig.ips', 'list of addresses with prefix length', 'capability `ips`: in the place of all others'],
    ['args.cni.ips', 'list of addresses with prefix length', 'the same from `args`']
  ],
  tuning: [
    ['sysctl', 'object of texts', 'settings below `net.` in the container; `IFNAME` stands for the interface'],
    ['mac', 'MAC address', 'the address of the interface'],
    ['mtu', '0 or 68 to 65535', 'its MTU'],
    ['dataDir', 'absolute path', 'where old settings are kept until DEL; default `/run/cni/tuning`'],
    ['promisc', 'true, false', 'the interface takes frames for every address; false asks for nothing'],
    ['allmulti', 'true, false', 'it takes all multicast frames, or not'],
    ['txQLen', 'whole number', 'packets that may wait to be sent'],
    ['runtimeConfig.mac', 'MAC address', 'capability `mac`'],
    ['args.cni.sysctl', 'object of texts', 'as `sysctl`; those of `args` win'],
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
      'what a pod sends to a host port of its own, and this host to any, comes from this host; default true'
    ],
    ['masqAll', 'true, false', 'so does all that comes in by a host port'],
    ['backend', 'iptables or nftables', 'read and ignored'],
    ['markMasqBit', '0 to 31', 'read and ignored; not together with `externalSetMarkChain`'],
    ['externalSetMarkChain', 'text', 'read and ignored'],
    [
      'conditionsV4',
      'list of words',
      'a port leads to the container only for such IPv4 packets: `-s`, `-d`, `-i` of iptables, `!` before them; or `ip saddr`, `ip daddr`, `iifname` of nft, with `!=`. Others are refused by name, as are more than four addresses and devices'
    ],
    ['conditionsV6', 'list of words', 'the same for IPv6 packets, `ip6` in place of `ip`'],
    ...PORTS
  ],
  bandwidth: [...BANDWIDTH],
  firewall: [
    [
      'ingressPolicy',
      'open, same-bridge or isolated',
      'same-bridge: nothing is routed from its bridge to another one of this kind; isolated: nor does anything pass between such containers on one bridge'
    ]
  ],
  flannel: [
    ['subnetFile', 'absolute path', 'default `/run/flannel/subnet.env`'],
    ['dataDir', 'absolute path', 'where what was delegated is kept until DEL; default `/var/lib/cni/flannel`'],
    ['delegate', 'object', "keys of the plugin that makes the interface; they win over flannel's own"],
    ['delegate.type', 'name of a plugin', 'default `bridge`'],
    ['ipam', 'object', 'keys for its IPAM plugin'],
    ['ipam.type', 'name of a plugin', 'default `host-local`'],
    ['ipam.routes', 'list of routes', 'in addition to those into the pod network']
  ]
}

export const blocks = {
  plugins: () =>
    Object.entries(PLUGIN_KEYS)
      .map(([type, keys]) => {
        const rows = keys.map(([key, value, means]) => [code(key), value, means])
        return `### ${type}\n\n${rows.length === 0 ? 'It has no keys.' : table([['key', 'value', 'what it does'], ...rows])}`
      })
      .join('\n\n')
}
