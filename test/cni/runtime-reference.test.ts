// The reference plugins and ours on the same input, side by side on two hosts: what they print is compared field by
// field, in every version.
import assert from 'node:assert/strict'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { BIN, Cluster } from '../lab/cluster.ts'
import { type CniAnswer, type CniVerb, cni, type Json } from '../lab/cni.ts'
import type { Host } from '../lab/host.ts'
import { missingPeer } from '../lab/peers.ts'

const skip = process.getuid?.() === 0 ? missingPeer('cni/bridge') : 'needs root'
const reference = join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'peers/cni')

const pool = { type: 'host-local', ranges: [[{ subnet: '10.80.0.0/24' }]], routes: [{ dst: '0.0.0.0/0' }] }
const pools = {
  type: 'host-local',
  ranges: [[{ subnet: '10.80.0.0/24', gateway: '10.80.0.254' }], [{ subnet: 'fd00:80::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '10.99.0.0/16', gw: '10.80.0.254' }, { dst: '::/0' }]
}
const fixed = {
  type: 'static',
  addresses: [{ address: '10.81.0.9/24', gateway: '10.81.0.1' }, { address: 'fd00:81::9/64' }],
  routes: [{ dst: '0.0.0.0/0', gw: '10.81.0.1' }],
  dns: { nameservers: ['10.81.0.1'] }
}
const dns = { nameservers: ['10.1.1.1', 'fd00::1'], domain: 'lab', search: ['lab', 'pod.lab'], options: ['ndots:5'] }
const bridge = { type: 'bridge', bridge: 'br0', isGateway: true, ipam: pool }
const portMappings = [{ hostPort: 8100, containerPort: 80, protocol: 'tcp' }]
const bandwidth = { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 }

type Case = {
  readonly about: string
  readonly plugins: readonly Json[]
  readonly capabilities?: Json
  readonly since?: string
  /** What ours tells and the reference does not, besides the MTU of interfaces (a member since 1.1.0). */
  readonly tells?: readonly string[]
  /** Why the reference's CHECK is not asked. */
  readonly noCheck?: string
}

const cases: readonly Case[] = [
  { about: 'bridge as a gateway', plugins: [bridge] },
  {
    about: 'bridge as the default gateway with masquerade',
    plugins: [{ ...bridge, isDefaultGateway: true, ipMasq: true, ipam: { ...pool, routes: [] } }]
  },
  {
    about: 'bridge that is no gateway, with MTU and hairpin',
    plugins: [{ ...bridge, isGateway: false, mtu: 1400, hairpinMode: true }]
  },
  {
    about: 'bridge in promiscuous mode with isolated ports',
    plugins: [{ ...bridge, promiscMode: true, portIsolation: true }]
  },
  { about: 'bridge with two families and explicit gateways', plugins: [{ ...bridge, ipam: pools }], since: '0.3.0' },
  { about: 'bridge with DNS of its own', plugins: [{ ...bridge, dns }] },
  {
    about: 'bridge with a requested MAC',
    plugins: [{ ...bridge, capabilities: { mac: true } }],
    capabilities: { mac: '02:11:22:33:44:55' }
  },
  {
    about: 'bridge with requested addresses',
    plugins: [{ ...bridge, capabilities: { ips: true } }],
    capabilities: { ips: ['10.80.0.77'] }
  },
  { about: 'bridge with the static IPAM and its DNS', plugins: [{ ...bridge, ipam: fixed }] },
  {
    about: 'bridge without addresses',
    plugins: [{ type: 'bridge', bridge: 'br0' }],
    since: '0.3.0',
    noCheck: 'it asks for an IPAM plugin without a name'
  },
  { about: 'ptp', plugins: [{ type: 'ptp', ipam: pool }] },
  {
    about: 'ptp with two families, masquerade and DNS',
    plugins: [{ type: 'ptp', ipMasq: true, mtu: 1400, dns, ipam: pools }],
    since: '0.3.0'
  },
  { about: 'macvlan', plugins: [{ type: 'macvlan', master: 'eth0', ipam: pool }] },
  {
    about: 'macvlan in another mode with MTU, MAC, two families and DNS',
    plugins: [
      { type: 'macvlan', master: 'eth0', mode: 'private', mtu: 1400, dns, ipam: pools, capabilities: { mac: true } }
    ],
    capabilities: { mac: '02:11:22:33:44:77' },
    since: '0.3.0'
  },
  { about: 'loopback', plugins: [{ type: 'loopback' }], since: '0.3.0', tells: ['version'] },
  { about: 'loopback after bridge', plugins: [bridge, { type: 'loopback' }] },
  { about: 'host-local alone', plugins: [{ type: 'host-local', ipam: pools }], since: '0.3.0' },
  { about: 'host-local alone with one family', plugins: [{ type: 'host-local', ipam: pool }] },
  { about: 'static alone', plugins: [{ type: 'static', ipam: fixed }], since: '0.3.0' },
  { about: 'portmap without ports', plugins: [bridge, { type: 'portmap' }] },
  {
    about: 'portmap with a port',
    plugins: [bridge, { type: 'portmap', capabilities: { portMappings: true } }],
    capabilities: { portMappings }
  },
  {
    about: 'bandwidth',
    plugins: [bridge, { type: 'bandwidth', capabilities: { bandwidth: true } }],
    capabilities: { bandwidth },
    since: '0.3.0'
  },
  {
    about: 'tuning of MTU, MAC and a sysctl',
    plugins: [
      bridge,
      { type: 'tuning', mtu: 1300, mac: '02:11:22:33:44:66', sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } }
    ]
  },
  { about: 'tuning of modes', plugins: [bridge, { type: 'tuning', promisc: true, allmulti: true, txQLen: 500 }] },
  {
    about: 'firewall with a policy',
    plugins: [bridge, { type: 'firewall', backend: 'iptables', ingressPolicy: 'same-bridge' }],
    since: '0.4.0'
  },
  { about: 'firewall', plugins: [bridge, { type: 'firewall', backend: 'iptables' }], since: '0.4.0' }
]

/**
 * What differs from call to call: addresses of hardware that nobody chose, and names of links made of random or derived
 * digits.
 */
function comparable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(comparable)
  if (typeof value === 'string') {
    if (/^veth[0-9a-f]{8}$/.test(value)) return 'veth…'
    if (/^(bwp[0-9a-f]{12}|weft[0-9a-f]{8})$/.test(value)) return 'ifb…'
    return /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(value) && !/^(00:00:00:00:00:00|02:11:.*)$/.test(value)
      ? 'mac…'
      : value
  }
  if (value === null || typeof value !== 'object') return value
  // An empty `dns` and none mean the same: newer releases of the reference leave it out, too.
  const members = Object.entries(value).filter(([key, each]) => key !== 'dns' || Object.keys(each as object).length > 0)
  return Object.fromEntries(members.map(([key, each]) => [key, comparable(each)]))
}

/** Ours without members that it may tell and that the reference leaves out. */
function withoutMore(mine: unknown, other: unknown, more: readonly string[]): unknown {
  if (Array.isArray(mine))
    return mine.map((each, n) => withoutMore(each, Array.isArray(other) ? other[n] : undefined, more))
  if (mine === null || typeof mine !== 'object') return mine
  const known = (other ?? {}) as Json
  const members = Object.entries(mine).filter(([key]) => !more.includes(key) || key in known)
  return Object.fromEntries(members.map(([key, value]) => [key, withoutMore(value, known[key], more)]))
}

describe('ours and the reference', { skip, timeout: 900_000 }, () => {
  const up = new AsyncDisposableStack()
  let ours: Host
  let theirs: Host

  before(
    async () => {
      const cluster = up.use(await Cluster.start({ hosts: [2], start: false }))
      ours = cluster.node(1)
      theirs = cluster.node(2)
      await cluster.join(ours)
    },
    { timeout: 120_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  /** ADD, CHECK and DEL of one configuration; the container has the same name on both hosts. */
  async function life(
    host: Host,
    binDir: string,
    config: Json,
    { capabilities = {}, noCheck }: Case
  ): Promise<readonly CniAnswer[]> {
    await using pod = await host.pod('same')
    const call = (verb: CniVerb, more: object = {}) =>
      cni(host, { verb, config, binDir, containerId: 'same', netns: pod.netns, capabilities, check: false, ...more })
    const added = await call('ADD')
    if (added.error) return [added]
    const after = { prevResult: added.result }
    const checked = String(config.cniVersion) >= '0.4.0' && noCheck === undefined ? [await call('CHECK', after)] : []
    const deleted = [await call('DEL', after), await call('DEL')]
    return [added, ...checked, ...deleted]
  }

  for (const [n, story] of cases.entries()) {
    const { about, plugins: written, since = '0.1.0', tells = [] } = story
    // A bridge and a network for each case: what one leaves in them is no matter of the next.
    const plugins = written.map((plugin) => (plugin.type === 'bridge' ? { ...plugin, bridge: `br${n}` } : plugin))
    const unknown = plugins.filter(({ type }) => !pluginTypes.includes(String(type)))
    const skip = unknown.length > 0 && `${unknown.map(({ type }) => type).join(', ')} is no plugin of ours yet`
    test(`answer the same for ${about}, in every version since ${since}`, { skip }, async () => {
      for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
        if (cniVersion < since) continue
        const config = { cniVersion, name: `same${n}`, plugins }
        const [mine, other] = [await life(ours, BIN, config, story), await life(theirs, reference, config, story)]
        const shown = (answers: readonly CniAnswer[]) =>
          answers.map(({ result, error }) => ({ result: comparable(result), error: error?.msg }))
        assert.deepEqual(
          withoutMore(shown(mine), shown(other), ['mtu', ...tells]),
          shown(other),
          `version ${cniVersion}`
        )
        assert.equal(other[0]?.error, undefined, JSON.stringify(other[0]?.error))
      }
    })
  }

  const good = { cniVersion: '1.0.0', name: 'same', ...bridge }
  for (const [about, config, more] of [
    ['no network name', { ...good, name: '' }, {}],
    ['a network name with a slash', { ...good, name: 'a/b' }, {}],
    ['a version that nobody knows', { ...good, cniVersion: '9.9.9' }, {}],
    ['a version that is a number', { ...good, cniVersion: 1 }, {}],
    ['a container id that begins with a dash', good, { containerId: '-a' }],
    ['no container id', good, { containerId: '' }],
    ['an interface name of 16 bytes', good, { ifname: '0123456789abcdef' }],
    ['CHECK in a version that has none', { ...good, cniVersion: '0.3.1' }, { verb: 'CHECK' }],
    ['GC in a version that has none', good, { verb: 'GC' }],
    ['STATUS in a version that has none', good, { verb: 'STATUS' }]
  ] as const) {
    test(`refuse ${about} with the same code`, async () => {
      await using _mine = await ours.pod('same')
      await using _other = await theirs.pod('same')
      const call = (host: Host, binDir: string) =>
        cni(host, { verb: 'ADD', config, binDir, containerId: 'same', netns: '/run/netns/same', check: false, ...more })
      const [mine, other] = [await call(ours, BIN), await call(theirs, reference)]
      assert.notEqual(other.error?.code, undefined)
      assert.equal(mine.error?.code, other.error?.code, `${mine.stdout} against ${other.stdout}`)
    })
  }

  test('list the same versions; Weft may list more', async () => {
    for (const type of pluginTypes) {
      if (missingPeer(`cni/${type}`)) continue
      const versions = async (host: Host, binDir: string) =>
        (await cni(host, { verb: 'VERSION', config: { cniVersion: '1.1.0', type }, binDir })).result
          ?.supportedVersions as readonly string[]
      const [mine, other] = [await versions(ours, BIN), await versions(theirs, reference)]
      assert.deepEqual(
        other.filter((version) => !mine.includes(version)),
        [],
        type
      )
    }
  })
})
