// CNI calls as runtimes make them, with every key that a plugin of ours has, and the same calls spoiled.
import type { Random } from './random.ts'
import { ODD_TEXTS, PROTOTYPE_KEYS, recased, spoiledJson, spoiledText, type Tree, treeOf } from './tree.ts'

/** An environment and what stands on standard input. */
export type Spoken = { readonly env: Readonly<Record<string, string>>; readonly stdin: string }

export const VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const
export const VERBS = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION'] as const

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

export type Places = {
  /** Paths for CNI_NETNS. */
  readonly namespaces: readonly string[]
  readonly containerIds: readonly string[]
}

export const NOWHERE: Places = {
  namespaces: ['/run/netns/fuzz-none', '/dev/null', '/proc/self/ns/mnt', 'relative', '/run/netns/fuzz\u0000x'],
  containerIds: ['fuzz-c1', 'fuzz-c2', `f${'0'.repeat(63)}`]
}

/** A configuration that uses a random half of all the keys there are, with values that are right. */
export function configuration(random: Random, plugin: string): Readonly<Record<string, unknown>> {
  const version = random.pick(VERSIONS)
  const optional = Object.entries(keys(random, version)).filter(() => random.chance(0.4))
  return Object.fromEntries([['cniVersion', version], ['name', random.pick(NETWORKS)], ['type', plugin], ...optional])
}

function keys(random: Random, version: string): Readonly<Record<string, unknown>> {
  const mtu = random.pick([0, 68, 1280, 1400, 65_535])
  return {
    bridge: random.pick(['cni0', 'fuzzbr0', '']),
    mode: random.pick(['bridge', 'routed']),
    mtu,
    hairpinMode: random.chance(0.5),
    promiscMode: false,
    isDefaultGateway: random.chance(0.5),
    isGateway: true,
    ipMasq: random.chance(0.5),
    forceAddress: false,
    vlan: 0,
    master: 'eth0',
    sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
    dns: { nameservers: ['10.0.0.10'], domain: 'x.test', search: ['x.test'], options: ['ndots:5'] },
    capabilities: { portMappings: true, bandwidth: true, ips: true, mac: true, ipRanges: true },
    ingressRate: 8_000_000,
    ingressBurst: 800_000,
    ipam: {
      ...(random.chance(0.5) && { type: random.pick(['weft', 'host-local', '']) }),
      dataDir: random.pick(DATA_DIRS),
      ...(random.chance(0.5) && { ranges: ranges(random) }),
      routes: [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.77.0.1', mtu: 1400, priority: 5, scope: 0 }]
    },
    runtimeConfig: {
      ...(random.chance(0.5) && { ips: [random.pick(['10.77.0.5', '10.77.0.6/24', 'fd00:77::5'])] }),
      ...(random.chance(0.5) && { mac: '0a:58:0a:4d:00:05' }),
      ...(random.chance(0.5) && { ipRanges: ranges(random) }),
      portMappings: [
        {
          hostPort: random.between(1, 65_535),
          containerPort: 80,
          protocol: random.pick(['tcp', 'UDP', 'sctp']),
          hostIP: ''
        }
      ],
      bandwidth: { ingressRate: 8_000, ingressBurst: 8_000, egressRate: 16_000, egressBurst: 16_000 },
      aliases: { [random.pick(NETWORKS)]: ['web'] },
      'io.kubernetes.cri.pod-annotations': { a: 'b' }
    },
    args: { cni: { ips: ['10.77.0.7'], mac: '0a:58:0a:4d:00:06', labels: [{ key: 'a', value: 'b' }] } },
    prevResult: previous(random, version),
    'cni.dev/valid-attachments': [{ containerID: 'fuzz-c1', ifname: 'eth0' }],
    'cni.dev/attachments': random.pick([null, [], [{ containerID: 'fuzz-c2', ifname: 'eth1' }]])
  }
}

const ranges = (random: Random) => [
  [
    {
      subnet: random.pick(['10.77.0.0/24', '10.77.8.0/29', 'fd00:77::/64']),
      ...(random.chance(0.3) && { rangeStart: '10.77.0.4', rangeEnd: '10.77.0.9' }),
      ...(random.chance(0.3) && { gateway: '10.77.0.1' })
    }
  ]
]

function previous(random: Random, version: string): unknown {
  const own = random.chance(0.7) ? { cniVersion: version } : {}
  if (version < '0.3.0')
    return { ...own, ip4: { ip: '10.77.0.5/24', gateway: '10.77.0.1', routes: [{ dst: '0.0.0.0/0' }] } }
  return {
    ...own,
    interfaces: [
      { name: 'veth1', mac: '0a:58:0a:4d:00:01' },
      { name: 'eth0', sandbox: '/run/netns/fuzz-none' }
    ],
    ips: [{ address: '10.77.0.5/24', gateway: '10.77.0.1', interface: 1, ...(version < '1.0.0' && { version: '4' }) }],
    routes: [{ dst: '0.0.0.0/0', gw: '10.77.0.1' }],
    dns: {}
  }
}

export function environment(random: Random, places: Places = NOWHERE): Readonly<Record<string, string>> {
  return {
    CNI_COMMAND: random.pick(VERBS),
    CNI_CONTAINERID: random.pick(places.containerIds),
    CNI_NETNS: random.pick(places.namespaces),
    CNI_IFNAME: random.pick(['eth0', 'eth1', 'a', 'fifteen-bytes-x']),
    CNI_ARGS: random.pick([
      '',
      'IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b',
      'IP=10.77.0.9',
      'IgnoreUnknown=true;MAC=0a:58:0a:4d:00:09'
    ]),
    CNI_PATH: random.pick(['', '/opt/cni/bin', ':/nowhere:'])
  }
}

function spoiledEnvironment(
  random: Random,
  env: Readonly<Record<string, string>>,
  accept: (name: string, value: string) => boolean
): Readonly<Record<string, string>> {
  const changed: [string, string][] = Object.entries(env)
  for (let times = random.between(1, 3); times > 0; times--) {
    const at = random.below(changed.length)
    const [name = '', value = ''] = changed[at] ?? []
    const odd: readonly [string, string] = [
      [name, ''],
      [name, random.pick(ODD_TEXTS)],
      [name, spoiledText(random, value)],
      [recased(random, name), value],
      [name, recased(random, value)],
      [random.pick(PROTOTYPE_KEYS), value],
      ['TRACEPARENT', random.pick(ODD_TEXTS)],
      ['CNI_NETNS_OVERRIDE', random.pick(['', '0', 'false', 'no'])]
    ][random.below(8)] as [string, string]
    if (accept(odd[0], odd[1])) changed[at] = [odd[0], odd[1]]
  }
  return Object.fromEntries(changed)
}

/** What `accept` refuses of a spoiled environment stays as it was. */
export type Limits = { readonly places?: Places; readonly accept?: (name: string, value: string) => boolean }

/** A call with something wrong in it: mostly in the configuration, often in the environment, seldom nothing. */
export function hostileCall(random: Random, plugin: string, limits: Limits = {}): Spoken {
  const { places = NOWHERE, accept = () => true } = limits
  const tree: Tree = treeOf(configuration(random, plugin))
  const env = environment(random, places)
  return {
    env: random.chance(0.4) ? spoiledEnvironment(random, env, accept) : env,
    stdin: random.chance(0.85) ? spoiledJson(random, tree) : JSON.stringify(configuration(random, plugin))
  }
}
