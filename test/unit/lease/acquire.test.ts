// The choice of a subnet: flannel's order, the limits of the configuration, and never one that overlaps a lease.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type NetConf, parseNetConf } from '../../../daemon/config/net-conf.ts'
import { chooseSubnet, fits, freeSubnets, grantedSubnet, type SubnetRequest } from '../../../daemon/lease/acquire.ts'
import { type Lease, leaseKey, parseLease, parseLeaseKey } from '../../../daemon/lease/lease.ts'
import { formatIp, formatPrefix, network, overlaps, parsePrefix, perFamily } from '../../../ipam/address.ts'

const conf = (value: object): NetConf => parseNetConf(JSON.stringify({ Network: '10.2.0.0/16', ...value }))
const DUAL = { EnableIPv6: true, IPv6Network: 'fd00:2::/48' }
const lease = (key: string, publicIp: string): Lease =>
  parseLease(
    key,
    JSON.stringify(publicIp.includes(':') ? { PublicIPv6: publicIp } : { PublicIP: publicIp, BackendType: 'vxlan' })
  )
/** The key of the network of this prefix, whatever its host bits. */
const keyOf = (prefix: string) => formatPrefix(network(parsePrefix(prefix)!)).replace('/', '-')
const subnets = (key: string | undefined) => (key === undefined ? {} : parseLeaseKey(key)!)

type Case = {
  readonly what: string
  readonly conf?: object
  /** Key, public address, and the node's name where the store has one. */
  readonly leases?: readonly (readonly [string, string, string?])[]
  readonly previous?: string
  readonly held?: string
  /** The public address under which a lease publishes the MAC of this host's tunnel. */
  readonly tunnelOf?: string
  /** The public address of the leases that are certainly other nodes'. */
  readonly anothers?: string
  readonly random?: number
  /** Networks and addresses of this host. */
  readonly occupied?: readonly string[]
  readonly expected: string
}
const cases: readonly Case[] = [
  { what: 'an empty network gives a random one of the first 100', random: 0, expected: 'take 10.2.1.0-24' },
  { what: 'the last of the first 100 is the 100th', random: 0.999, expected: 'take 10.2.100.0-24' },
  {
    what: 'the lease that publishes our address is kept',
    leases: [
      ['10.2.3.0-24', '192.0.2.2'],
      ['10.2.9.0-24', '192.0.2.1']
    ],
    previous: '10.2.50.0-24',
    expected: 'keep 10.2.9.0-24'
  },
  {
    what: 'a lease of ours outside SubnetMin…SubnetMax is given up',
    conf: { SubnetMin: '10.2.20.0' },
    leases: [['10.2.9.0-24', '192.0.2.1']],
    expected: 'take 10.2.20.0-24 unfit 10.2.9.0-24'
  },
  {
    what: 'a lease of ours with another length is given up',
    conf: { SubnetLen: 25 },
    leases: [['10.2.9.0-24', '192.0.2.1']],
    expected: 'take 10.2.0.128-25 unfit 10.2.9.0-24'
  },
  {
    what: 'the previous subnet is taken again when it is free',
    previous: '10.2.77.0-24',
    expected: 'take 10.2.77.0-24'
  },
  {
    what: 'the previous subnet is left alone when another node has it',
    previous: '10.2.1.0-24',
    leases: [['10.2.1.0-24', '192.0.2.2']],
    expected: 'take 10.2.2.0-24'
  },
  { what: 'a previous subnet that does not fit is left alone', previous: '10.9.1.0-24', expected: 'take 10.2.1.0-24' },
  {
    what: 'what the daemon holds is kept when its address changes',
    held: '10.2.5.0-24',
    leases: [['10.2.5.0-24', '192.0.2.99']],
    expected: 'keep 10.2.5.0-24'
  },
  {
    what: 'of two leases of ours the previous one is kept',
    leases: [
      ['10.2.3.0-24', '192.0.2.1'],
      ['10.2.4.0-24', '192.0.2.1']
    ],
    previous: '10.2.4.0-24',
    expected: 'keep 10.2.4.0-24'
  },
  {
    what: 'the previous subnet is kept under a new address where its lease has the MAC of our tunnel',
    previous: '10.2.1.0-24',
    leases: [['10.2.1.0-24', '192.0.2.2']],
    tunnelOf: '192.0.2.2',
    expected: 'keep 10.2.1.0-24'
  },
  {
    what: 'it comes before what somebody left under our new address',
    previous: '10.2.1.0-24',
    leases: [
      ['10.2.9.0-24', '192.0.2.1'],
      ['10.2.1.0-24', '192.0.2.2']
    ],
    tunnelOf: '192.0.2.2',
    expected: 'keep 10.2.1.0-24'
  },
  {
    what: 'a lease with the MAC of our tunnel is not ours when its subnet never was: a clone derives the same',
    previous: '10.2.7.0-24',
    leases: [['10.2.1.0-24', '192.0.2.2']],
    tunnelOf: '192.0.2.2',
    expected: 'take 10.2.7.0-24'
  },
  {
    what: 'a lease with our address is not ours when subnet.env names another one of ours: two nodes publish one address',
    leases: [
      ['10.2.3.0-24', '192.0.2.1'],
      ['10.2.4.0-24', '192.0.2.1']
    ],
    previous: '10.2.4.0-24',
    expected: 'keep 10.2.4.0-24'
  },
  {
    what: 'nor is it given up when it does not fit: it is the other node’s',
    conf: { SubnetMin: '10.2.4.0' },
    leases: [
      ['10.2.3.0-24', '192.0.2.1'],
      ['10.2.4.0-24', '192.0.2.1']
    ],
    previous: '10.2.4.0-24',
    expected: 'keep 10.2.4.0-24'
  },
  {
    what: 'a lease with our address under another node’s name is that node’s',
    leases: [['10.2.3.0-24', '192.0.2.1', 'other']],
    expected: 'take 10.2.1.0-24'
  },
  {
    what: 'unless subnet.env names it: our host name has changed',
    leases: [['10.2.3.0-24', '192.0.2.1', 'other']],
    previous: '10.2.3.0-24',
    expected: 'keep 10.2.3.0-24'
  },
  {
    what: 'a lease that is certainly another node’s is left alone, although address and subnet were ours',
    leases: [['10.2.1.0-24', '192.0.2.1']],
    ...{ previous: '10.2.1.0-24', anothers: '192.0.2.1', tunnelOf: '192.0.2.1' },
    expected: 'take 10.2.2.0-24'
  },
  {
    what: 'no subnet is chosen that this host’s networks overlap',
    occupied: ['10.2.1.0/24', '10.2.2.128/25', '10.2.3.7/32'],
    expected: 'take 10.2.4.0-24'
  },
  {
    what: 'nor taken again',
    previous: '10.2.9.0-24',
    occupied: ['10.2.8.0/23'],
    expected: 'take 10.2.1.0-24'
  },
  {
    what: 'no subnet is chosen that contains another node’s address',
    leases: [['10.2.50.0-24', '10.2.1.9']],
    expected: 'take 10.2.2.0-24'
  },
  {
    what: 'a host that has the whole range is named',
    occupied: ['10.2.0.0/16'],
    expected:
      'exhausted no /24 from 10.2.1.0/24 to 10.2.255.0/24 is free (0 leases, and this host has 10.2.0.0/16 there)'
  },
  {
    what: 'a lease of another length blocks what it overlaps',
    leases: [['10.2.0.0-22', '192.0.2.2']],
    expected: 'take 10.2.4.0-24'
  },
  {
    what: 'a full range is said to be full',
    conf: { SubnetMin: '10.2.7.0', SubnetMax: '10.2.8.0' },
    leases: [
      ['10.2.7.0-24', '192.0.2.2'],
      ['10.2.8.0-24', '192.0.2.3']
    ],
    expected: 'exhausted no /24 from 10.2.7.0/24 to 10.2.8.0/24 is free (2 leases)'
  },
  { what: 'dual stack takes both families together', conf: DUAL, expected: 'take 10.2.1.0-24&fd00:2:0:1::-64' },
  {
    what: 'a node that turns to dual stack keeps its IPv4 subnet',
    conf: DUAL,
    leases: [['10.2.9.0-24', '192.0.2.1']],
    expected: 'take 10.2.9.0-24&fd00:2:0:1::-64 unfit 10.2.9.0-24'
  },
  {
    what: 'IPv6 alone follows the same rules',
    conf: { EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd00:2::/48' },
    leases: [['fd00:2:0:1::-64', '2001:db8::9']],
    previous: 'fd00:2:0:1::-64',
    expected: 'take fd00:2:0:2::-64'
  }
]
for (const one of cases)
  test(one.what, () => {
    const choice = chooseSubnet({
      network: conf(one.conf ?? {}),
      publicIp: lease('10.2.1.0-24', '192.0.2.1').publicIp,
      previous: subnets(one.previous),
      node: 'us',
      leases: (one.leases ?? []).map(([key, ip, node]) => ({ ...lease(key, ip), ...(node !== undefined && { node }) })),
      occupied: (one.occupied ?? []).map((text) => parsePrefix(text)!),
      random: () => one.random ?? 0,
      namesOurDevice: ({ publicIp }) => publicIp[4] !== undefined && formatIp(publicIp[4]) === one.tunnelOf,
      isAnothers: ({ publicIp }) => publicIp[4] !== undefined && formatIp(publicIp[4]) === one.anothers,
      ...(one.held !== undefined && { held: subnets(one.held) })
    })
    const said =
      choice.kind === 'exhausted'
        ? `exhausted ${choice.detail}`
        : [
            choice.kind,
            leaseKey(choice.kind === 'keep' ? choice.lease : choice),
            ...choice.unfit.map((unfit) => `unfit ${leaseKey(unfit)}`)
          ].join(' ')
    assert.equal(said, one.expected)
  })

test('a large IPv6 range costs no more than its leases: the free ones after 5,000 taken are found', () => {
  const range = conf({ EnableIPv6: true, IPv6Network: 'fd00::/16' }).families[6]!
  const taken = Array.from({ length: 5_000 }, (_, at) => ({
    ip: { family: 6 as const, value: range.subnetMin.value + (BigInt(at) << 64n) },
    length: 64
  }))
  const [first] = freeSubnets(range, taken, 100)
  assert.equal(first?.ip.value, range.subnetMin.value + (5_000n << 64n))
})

test('whatever is leased, the choice fits the configuration and is free', () => {
  const v4 = fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 14, max: 26 }))
    .map(([at, length]) => keyOf(`10.2.${at}.0/${length}`))
  const v6 = fc
    .tuple(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 47, max: 66 }))
    .map(([at, length]) => keyOf(`fd00:2:0:${at.toString(16)}::/${length}`))
  const key = fc.oneof(
    v4,
    v6,
    fc.tuple(v4, v6).map(([a, b]) => `${a}&${b}`)
  )
  const taken = fc.array(fc.tuple(key, fc.integer({ min: 1, max: 4 })), { maxLength: 60 })
  const shape = fc.constantFrom({}, { SubnetLen: 26 }, { SubnetMin: '10.2.200.0' }, { SubnetMax: '10.2.9.0' }, DUAL, {
    ...DUAL,
    EnableIPv4: false
  })
  fc.assert(
    fc.property(
      taken,
      shape,
      fc.option(key, { nil: undefined }),
      fc.integer({ min: 0, max: 999 }),
      (keys, written, previous, random) => {
        const question: SubnetRequest = {
          network: conf(written),
          publicIp: lease('10.2.1.0-24', '192.0.2.1').publicIp,
          previous: subnets(previous),
          leases: keys.map(([name, node]) => lease(name, `192.0.2.${node}`)),
          namesOurDevice: () => random % 2 === 0,
          random: () => random / 1000
        }
        const choice = chooseSubnet(question)
        if (choice.kind === 'exhausted') return
        const chosen = choice.kind === 'keep' ? choice.lease.subnet : choice.subnet
        assert.ok(fits(chosen, question.network))
        if (choice.kind === 'keep') return
        for (const other of question.leases) {
          if (choice.unfit.includes(other)) continue
          for (const [family, prefix] of perFamily(chosen))
            assert.ok(other.subnet[family] === undefined || !overlaps(prefix, other.subnet[family]))
        }
      }
    ),
    { numRuns: 1_000 }
  )
})

test('if only one subnet is acceptable, it is kept, taken or lost, and its holder named', () => {
  const ask = (leases: readonly Lease[]) =>
    grantedSubnet(
      {
        network: conf({}),
        publicIp: { 4: lease('10.2.1.0-24', '192.0.2.1').publicIp[4]! },
        leases,
        previous: {},
        only: subnets('10.2.7.0-24'),
        namesOurDevice: () => false,
        random: () => 0
      },
      'etcd'
    ).kind
  assert.equal(ask([]), 'take')
  assert.equal(ask([lease('10.2.7.0-24', '192.0.2.1'), lease('10.2.3.0-24', '192.0.2.1')]), 'keep')
  const lost = (leases: readonly Lease[], message: RegExp) =>
    assert.throws(() => ask(leases), { code: 'LEASE_LOST', message })
  lost([lease('10.2.7.0-24', '192.0.2.9')], /10\.2\.7\.0-24 was ours.*leased to 192\.0\.2\.9/)
  lost([lease('10.2.7.128-25', '192.0.2.9')], /10\.2\.7\.128-25 is leased to 192\.0\.2\.9/)
  lost([lease('10.2.3.0-24', '192.0.2.1')], /this node's lease is 10\.2\.3\.0-24/)
})
