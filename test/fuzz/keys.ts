// Every key of a network configuration that a plugin of ours reads, with values that are right; a test compares them
// with what the plugins' files name.
import type { Random } from './random.ts'

/** Network names and folders that exist nowhere on a machine: spoiled calls reach real daemons. */
export const NETWORKS = ['fuzz-net', 'fuzz.2', 'Fuzz_3', '0fuzz'] as const
export const DATA_DIRS = [
  '/run/weft-fuzz',
  '/run/weft-fuzz/none',
  '/proc/weft-fuzz',
  '/dev/null/x',
  'relative',
  ''
] as const

/** An administrator's chain, for the plugin firewall. */
export const ADMIN_CHAIN = 'FUZZ-ADMIN'

type Keys = Readonly<Record<string, unknown>>

/**
 * All of them; where two exclude each other, one by chance. `version`: of the specification, which prevResult is in.
 */
export const keys = (random: Random, version: string): Keys => ({
  ...interfaceKeys(random),
  ...chainedKeys(random),
  ...networkKeys(random, version)
})

/** Those of the plugins that make an interface. */
const interfaceKeys = (random: Random): Keys => ({
  bridge: random.pick(['cni0', 'fuzzbr0', '']),
  mode: random.pick(['bridge', 'routed', 'bridge', 'private', 'vepa', 'passthru', '']),
  mtu: random.pick([0, 68, 1280, 1400, 65_535]),
  mac: random.pick(['', '0a:58:0a:4d:00:07', '0A-58-0A-4D-00-08']),
  hairpinMode: random.chance(0.5),
  promiscMode: false,
  isDefaultGateway: random.chance(0.5),
  isGateway: true,
  ipMasq: random.chance(0.5),
  ipMasqBackend: random.pick(['', 'iptables', 'nftables']),
  forceAddress: false,
  vlan: 0,
  vlanTrunk: [],
  preserveDefaultVlan: random.chance(0.5),
  enabledad: false,
  portIsolation: random.chance(0.5),
  macspoofchk: random.chance(0.5),
  disableContainerInterface: random.chance(0.1),
  master: 'eth0',
  linkInContainer: random.chance(0.3),
  bcqueuelen: random.pick([0, 1_000, 4_294_967_295])
})

/** Those of the plugins behind them, and of `flannel`. */
const chainedKeys = (random: Random): Keys => ({
  ...limits(random),
  ...subnets(random),
  ...interfaceSettings(random),
  sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
  dataDir: random.pick(DATA_DIRS),
  backend: random.pick(['', 'iptables', 'nftables']),
  firewalldZone: '',
  iptablesAdminChainName: random.pick(['', ADMIN_CHAIN]),
  snat: random.chance(0.7),
  masqAll: random.chance(0.3),
  ...(random.chance(0.5)
    ? { markMasqBit: random.between(0, 31) }
    : { externalSetMarkChain: random.pick(['', 'KUBE-MARK-MASQ']) }),
  conditionsV4: conditions(random, 4),
  conditionsV6: conditions(random, 6),
  ingressPolicy: random.pick(['', 'open', 'same-bridge', 'isolated']),
  delegate: random.pick([{}, { type: 'bridge', bridge: 'fuzzbr0', hairpinMode: true }, { type: 'ptp', mtu: 1400 }]),
  subnetFile: random.pick(['', '/run/weft-fuzz/subnet.env', '/run/flannel/subnet.env'])
})

/** Those of addresses, of results and of what a runtime says. */
const networkKeys = (random: Random, version: string): Keys => ({
  dns: dns(),
  capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true, ipRanges: true },
  ipam: ipam(random),
  runtimeConfig: {
    ...(random.chance(0.5) && { ips: [random.pick(['10.77.0.5', '10.77.0.6/24', 'fd00:77::5'])] }),
    ...(random.chance(0.5) && { mac: '0a:58:0a:4d:00:05' }),
    ...(random.chance(0.5) && { ipRanges: ranges(random) }),
    portMappings: Array.from({ length: random.pick([1, 1, 2, 5]) }, () => portMapping(random)),
    bandwidth: { ...limits(random), ...(random.chance(0.5) && subnets(random)) },
    aliases: { [random.pick(NETWORKS)]: ['web'] },
    'io.kubernetes.cri.pod-annotations': { a: 'b' }
  },
  args: {
    cni: {
      ...(random.chance(0.5) && { ips: [random.pick(['10.77.0.7', '10.77.0.7/24'])] }),
      ...(random.chance(0.5) && { mac: '0a:58:0a:4d:00:06', mtu: 1400 }),
      ...(random.chance(0.5) && { ...interfaceSettings(random), sysctl: { 'net/ipv4/conf/all/arp_filter': '0' } }),
      labels: [{ key: 'a', value: 'b' }]
    }
  },
  prevResult: previous(random, version),
  'cni.dev/valid-attachments': [{ containerID: 'fuzz-c1', ifname: 'eth0' }],
  'cni.dev/attachments': random.pick([null, [], [{ containerID: 'fuzz-c2', ifname: 'eth1' }]])
})

const limits = (random: Random): Keys =>
  random.pick([
    { ingressRate: 8_000_000, ingressBurst: 800_000 },
    { egressRate: 16_000, egressBurst: 16_000 },
    { ingressRate: 8_000, ingressBurst: 8_000, egressRate: 16_000, egressBurst: 16_000 },
    { ingressRate: 0, ingressBurst: 0 }
  ])

const subnets = (random: Random): Keys => ({
  [random.pick(['shapedSubnets', 'unshapedSubnets'])]: random.pick([
    [],
    ['10.0.0.0/8'],
    ['192.0.2.0/24', 'fd00::/8', '198.51.100.7/32']
  ])
})

const interfaceSettings = (random: Random): Keys => ({
  promisc: random.chance(0.5),
  allmulti: random.chance(0.5),
  txQLen: random.pick([0, 500, 2_147_483_647])
})

/** In the words of iptables or of nft; now and then as one text, as the reference takes it. */
function conditions(random: Random, family: 4 | 6): readonly string[] {
  const address = family === 4 ? ['192.0.2.0/24', '198.51.100.7'] : ['2001:db8::/32', 'fd00::7']
  const device = random.pick(['eth0', 'eth*', 'eth+'])
  const words = random.pick([
    [],
    ['-s', random.pick(address)],
    ['!', '--source', address[0] ?? '', '-i', device],
    ['-d', address.join(',')],
    ['--dst', random.pick(address), '!', '--in-interface', device],
    [family === 4 ? 'ip' : 'ip6', random.pick(['saddr', 'daddr']), '!=', random.pick(address)],
    ['iifname', `"${device}"`, family === 4 ? 'ip' : 'ip6', 'saddr', '==', random.pick(address)]
  ])
  return random.chance(0.2) ? [words.join(' ')] : words
}

const portMapping = (random: Random): Keys => ({
  hostPort: random.between(1, 65_535),
  containerPort: random.pick([80, random.between(1, 65_535)]),
  protocol: random.pick(['tcp', 'UDP', 'sctp']),
  hostIP: random.pick(['', '', '0.0.0.0', '::', '127.0.0.1', '10.77.0.200'])
})

const dns = (): Keys => ({ nameservers: ['10.0.0.10'], domain: 'x.test', search: ['x.test'], options: ['ndots:5'] })

const ipam = (random: Random): Keys => ({
  ...(random.chance(0.6) && { type: random.pick(['weft', 'host-local', 'static', '']) }),
  dataDir: random.pick(DATA_DIRS),
  ...(random.chance(0.5) && { ranges: ranges(random) }),
  ...(random.chance(0.3) && range(random)),
  ...(random.chance(0.2) && { resolvConf: random.pick(['', '/etc/resolv.conf', '/run/weft-fuzz/resolv.conf']) }),
  ...(random.chance(0.5) && { addresses: [{ address: '10.77.0.8/24', gateway: random.pick(['', '10.77.0.1']) }] }),
  ...(random.chance(0.3) && { dns: dns() }),
  routes: [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.77.0.1', mtu: 1400, priority: 5, scope: 0 }]
})

const ranges = (random: Random) => [[range(random)]]

const range = (random: Random): Keys => ({
  subnet: random.pick(['10.77.0.0/24', '10.77.8.0/29', 'fd00:77::/64']),
  ...(random.chance(0.3) && { rangeStart: '10.77.0.4', rangeEnd: '10.77.0.9' }),
  ...(random.chance(0.3) && { gateway: '10.77.0.1' })
})

function previous(random: Random, version: string): unknown {
  const own = random.chance(0.7) ? { cniVersion: version } : {}
  if (version < '0.3.0')
    return {
      ...own,
      ip4: { ip: '10.77.0.5/24', gateway: '10.77.0.1', routes: [{ dst: '0.0.0.0/0' }] },
      ...(random.chance(0.3) && { ip6: { ip: 'fd00:77::5/64' } })
    }
  return {
    ...own,
    interfaces: [
      { name: 'veth1', mac: '0a:58:0a:4d:00:01', mtu: 1400, socketPath: '/run/fuzz.sock', pciID: '0000:00:1f.6' },
      { name: 'eth0', sandbox: '/run/netns/fuzz-none' }
    ],
    ips: [{ address: '10.77.0.5/24', gateway: '10.77.0.1', interface: 1, ...(version < '1.0.0' && { version: '4' }) }],
    routes: [{ dst: '0.0.0.0/0', gw: '10.77.0.1', advmss: 1360, table: 254 }],
    dns: {}
  }
}
