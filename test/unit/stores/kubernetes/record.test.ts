// Nodes as leases: flannel's annotations to the letter, both ways, and which podCIDRs serve a configuration.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Json, JsonObject } from '../../../../daemon/config/json.ts'
import { parseNetConf } from '../../../../daemon/config/net-conf.ts'
import { formatLeaseValue, type Lease, leaseKey } from '../../../../daemon/lease/lease.ts'
import { projectNode } from '../../../../daemon/stores/kubernetes/node.ts'
import {
  annotationDifferences,
  annotationPatch,
  annotationPrefix,
  annotationsOf,
  hasSubnets,
  type KubeNode,
  leaseOfNode,
  networkAvailable,
  placementOf,
  publicAddresses,
  usedUp
} from '../../../../daemon/stores/kubernetes/record.ts'
import { formatIp, network, type Prefix, parseIp, parsePrefix, perFamily, width } from '../../../../ipam/address.ts'

const PREFIX = 'flannel.alpha.coreos.com/'
const VXLAN = '{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}'
/** As flanneld leaves a node with one family. */
const FLANNEL = {
  'backend-data': VXLAN,
  'backend-type': 'vxlan',
  'kube-subnet-manager': 'true',
  'public-ip': '192.0.2.1'
}
const node = (annotations: Record<string, string>, podCidrs = ['10.244.3.0/24'], more: Partial<KubeNode> = {}) =>
  ({
    name: 'n1',
    uid: 'u1',
    podCidrs,
    annotations,
    networkUnavailable: 'False',
    ready: true,
    ...more
  }) satisfies KubeNode
const shown = (lease: Lease | undefined) => lease && `${leaseKey(lease)} ${formatLeaseValue(lease)}`

for (const [option, prefix] of [
  ['flannel.alpha.coreos.com', 'flannel.alpha.coreos.com/'],
  ['flannel.alpha.coreos.com/', 'flannel.alpha.coreos.com/'],
  ['weft.io/site', 'weft.io/site-'],
  ['weft.io/site-', 'weft.io/site-']
] as const)
  test(`--kube-annotation-prefix=${option} makes annotations begin with ${prefix}`, () =>
    assert.equal(annotationPrefix(option), prefix))

test('of a node object only what a lease needs is kept', () => {
  const object: Json = {
    metadata: {
      name: 'n1',
      uid: 'u1',
      creationTimestamp: '2026-01-01T00:00:07Z',
      annotations: { [`${PREFIX}public-ip`]: '192.0.2.1', 'other.io/x': 'y' },
      managedFields: [{ manager: 'kubelet' }]
    },
    spec: { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24', 'fd00::/64'] },
    status: {
      conditions: [
        { type: 'Ready', status: 'True' },
        { type: 'NetworkUnavailable', status: 'True' }
      ],
      images: [{ names: ['a'] }]
    }
  }
  assert.deepEqual(projectNode(object, PREFIX), {
    name: 'n1',
    uid: 'u1',
    podCidrs: ['10.244.3.0/24', 'fd00::/64'],
    annotations: { 'public-ip': '192.0.2.1' },
    networkUnavailable: 'True',
    ready: true,
    created: Date.UTC(2026, 0, 1, 0, 0, 7)
  })
  assert.deepEqual(projectNode({ metadata: { name: 'n2' }, spec: { podCIDR: '10.1.0.0/24' } }, PREFIX), {
    name: 'n2',
    uid: '',
    podCidrs: ['10.1.0.0/24'],
    annotations: {},
    networkUnavailable: undefined,
    ready: false
  })
})

test('a node that flanneld annotated is read as its lease', () => {
  assert.equal(
    shown(leaseOfNode(node(FLANNEL), PREFIX)),
    `10.244.3.0-24 {"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":${VXLAN}}`
  )
})

test('both families are one lease', () => {
  const both = { ...FLANNEL, 'public-ipv6': '2001:db8::1', 'backend-v6-data': VXLAN }
  const lease = leaseOfNode(node(both, ['10.244.3.0/24', 'fd00:3::/64']), PREFIX)
  assert.equal(
    shown(lease),
    `10.244.3.0-24&fd00:3::-64 {"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":${VXLAN},"BackendV6Data":${VXLAN}}`
  )
})

test('a family with a podCIDR and no public address is left out', () => {
  const lease = leaseOfNode(node(FLANNEL, ['10.244.3.0/24', 'fd00:3::/64']), PREFIX)
  assert.equal(lease && leaseKey(lease), '10.244.3.0-24')
})

test('the text null is no backend data', () => {
  const lease = leaseOfNode(node({ ...FLANNEL, 'backend-type': 'host-gw', 'backend-data': 'null' }), PREFIX)
  assert.deepEqual(lease?.backendData, {})
})

for (const [what, one] of [
  ['no annotation', node({})],
  ['kube-subnet-manager that is not true', node({ ...FLANNEL, 'kube-subnet-manager': 'false' })],
  ['no podCIDR yet', node(FLANNEL, [])]
] as const)
  test(`a node with ${what} publishes no lease`, () => assert.equal(leaseOfNode(one, PREFIX), undefined))

for (const [annotations, podCidrs, fault] of [
  [{ ...FLANNEL, 'public-ip': 'x' }, undefined, /node n1: \S+\/public-ip is "x"; it must be an IPv4 address/],
  [{ ...FLANNEL, 'public-ip': '::1' }, undefined, /public-ip is "::1"; it must be an IPv4 address/],
  [{ ...FLANNEL, 'public-ip': '' }, undefined, /public-ip is ""; it must be the address/],
  [{ ...FLANNEL, 'public-ip': '0.0.0.0' }, undefined, /public-ip is "0\.0\.0\.0"; it must be the address/],
  [{ ...FLANNEL, 'backend-data': '{' }, undefined, /backend-data is "\{"; it must be JSON/],
  [{ ...FLANNEL, 'backend-type': '' }, undefined, /backend-type is ""; it must be a backend such as vxlan/],
  [FLANNEL, ['nonsense'], /spec\.podCIDRs is "nonsense"; it must be CIDRs/]
] as const)
  test(`refuses ${JSON.stringify(annotations)} on ${podCidrs ?? 'a podCIDR'}`, () =>
    assert.throws(() => leaseOfNode(node(annotations, podCidrs && [...podCidrs]), PREFIX), {
      code: 'LEASE_MALFORMED',
      message: fault
    }))

const family = fc.constantFrom<4 | 6>(4, 6)
const ipOf = (f: 4 | 6) =>
  fc.bigInt({ min: 1n, max: (1n << BigInt(width(f))) - 1n }).map((value) => ({ family: f, value }) as const)
const share = (f: 4 | 6) =>
  fc.record({
    subnet: fc
      .tuple(ipOf(f), fc.integer({ min: 1, max: width(f) }))
      .map(([ip, length]): Prefix => network({ ip, length })),
    publicIp: ipOf(f),
    // Go's null is the same as nothing; JSON knows no -0.
    data: fc.jsonValue({ noUnicodeString: false } as object).filter((value) => value !== null)
  })
const leases = fc
  .record({
    families: fc.uniqueArray(family, { minLength: 1 }),
    4: share(4),
    6: share(6),
    type: fc.stringMatching(/^[a-z-]{1,9}$/)
  })
  .map(({ families, type, ...shares }): Lease => {
    const of = <T>(pick: (one: (typeof shares)[4]) => T) =>
      Object.fromEntries(families.map((f) => [f, pick(shares[f])])) as { readonly [F in 4 | 6]?: T }
    return {
      subnet: of((one) => one.subnet),
      publicIp: of((one) => one.publicIp),
      backendType: type,
      backendData: of((one) => JSON.parse(JSON.stringify(one.data)) as Json),
      node: 'n1'
    }
  })
const written = (lease: Lease): KubeNode =>
  node(
    Object.fromEntries(Object.entries(annotationsOf(lease)).filter(([, value]) => value !== null)) as Record<
      string,
      string
    >,
    perFamily(lease.subnet).map(([, prefix]) => `${formatIp(prefix.ip)}/${prefix.length}`)
  )

test('every lease survives being written into annotations and read again', () => {
  fc.assert(
    fc.property(leases, (lease) => {
      assert.deepEqual(leaseOfNode(written(lease), PREFIX), lease)
      assert.equal(hasSubnets(written(lease), lease), true)
    })
  )
})

test('after the patch nothing is left to patch, whatever stood there before', () => {
  const names = Object.keys(annotationsOf({ subnet: {}, publicIp: {}, backendType: '', backendData: {} }))
  const before = fc.dictionary(fc.constantFrom(...names, 'public-ip-overwrite'), fc.string())
  fc.assert(
    fc.property(leases, before, (lease, annotations) => {
      const one = node({ ...annotations }, [])
      const patch = annotationPatch(one, lease, PREFIX)
      const changes = ((patch?.metadata as JsonObject | undefined)?.annotations ?? {}) as Record<string, string | null>
      const after: Record<string, string> = { ...annotations }
      for (const [name, value] of Object.entries(changes)) {
        assert.ok(name.startsWith(PREFIX))
        if (value === null) delete after[name.slice(PREFIX.length)]
        else after[name.slice(PREFIX.length)] = value
      }
      assert.equal(Object.keys(changes).length, annotationDifferences(one, lease).length)
      assert.equal(annotationPatch(node(after, []), lease, PREFIX), undefined)
      assert.equal(after['public-ip-overwrite'], annotations['public-ip-overwrite'])
    })
  )
})

test('the patch has what differs and nothing else', () => {
  const lease = leaseOfNode(node(FLANNEL), PREFIX)!
  assert.equal(annotationPatch(node(FLANNEL), lease, PREFIX), undefined)
  const moved = { ...FLANNEL, 'public-ip': '192.0.2.9', 'public-ipv6': '2001:db8::9' }
  assert.deepEqual(annotationPatch(node(moved), lease, PREFIX), {
    metadata: { annotations: { [`${PREFIX}public-ip`]: '192.0.2.1', [`${PREFIX}public-ipv6`]: null } }
  })
  assert.deepEqual(annotationDifferences(node(moved), lease), [
    'public-ip is 192.0.2.9 instead of 192.0.2.1',
    'public-ipv6 is 2001:db8::9 instead of missing'
  ])
})

test('a backend without data publishes the text null, as flannel does', () => {
  const lease: Lease = { ...leaseOfNode(node(FLANNEL), PREFIX)!, backendType: 'host-gw', backendData: {} }
  assert.equal(annotationsOf(lease)['backend-data'], 'null')
})

test('public-ip-overwrite wins over node-public-ip, that over what was detected; what is no address is reported and ignored', () => {
  const detected = { 4: parseIp('192.0.2.1')!, 6: parseIp('2001:db8::1')! }
  const of = (annotations: Record<string, string>) => {
    const { publicIp, faults } = publicAddresses(node(annotations), PREFIX, detected)
    return [
      perFamily(publicIp)
        .map(([, ip]) => formatIp(ip))
        .join(' '),
      ...faults.map(({ text }) => text)
    ]
  }
  assert.deepEqual(of({}), ['192.0.2.1 2001:db8::1'])
  assert.deepEqual(of({ 'node-public-ip': '198.51.100.1' }), ['198.51.100.1 2001:db8::1'])
  assert.deepEqual(of({ 'node-public-ip': '198.51.100.1', 'public-ip-overwrite': '203.0.113.1' }), [
    '203.0.113.1 2001:db8::1'
  ])
  assert.deepEqual(of({ 'public-ipv6-overwrite': '2001:db8::9', 'node-public-ipv6': '2001:db8::8' }), [
    '192.0.2.1 2001:db8::9'
  ])
  assert.deepEqual(of({ 'public-ip-overwrite': 'router.example' }), [
    '192.0.2.1 2001:db8::1',
    `${PREFIX}public-ip-overwrite of node n1 is "router.example", but must be an IPv4 address`
  ])
})

const conf = parseNetConf('{"Network":"10.244.0.0/16"}')
const dual = parseNetConf('{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}')
for (const [podCidrs, configuration, expected] of [
  [['10.244.3.0/24'], conf, 'fits 10.244.3.0-24'],
  [['10.244.3.0/24', 'fd00:0:0:3::/64'], conf, 'fits 10.244.3.0-24'],
  [['fd00:0:0:3::/64', '10.244.3.0/24'], dual, 'fits 10.244.3.0-24&fd00:0:0:3::-64'],
  [[], conf, 'missing node n1 has no podCIDR'],
  [['10.244.3.0/24'], dual, 'missing node n1 has no IPv6 podCIDR, only 10.244.3.0/24'],
  [['10.250.3.0/24'], conf, 'outside podCIDR 10.250.3.0/24 of node n1 lies outside Network 10.244.0.0/16'],
  [['10.0.0.0/8'], conf, 'outside podCIDR 10.0.0.0/8 of node n1 lies outside Network 10.244.0.0/16']
] as const)
  test(`podCIDRs ${podCidrs.join(' and ') || 'none'}: ${expected}`, () => {
    const placement = placementOf(node({}, [...podCidrs]), configuration)
    const rest = placement.kind === 'fits' ? leaseKey(placement) : placement.detail
    assert.equal(`${placement.kind} ${rest}`, expected)
  })

test('podCIDRs are used up when nodes hold every subnet of their length', () => {
  const range = parsePrefix('10.244.0.0/22')!
  const all = ['10.244.0.0/24', '10.244.1.0/24', '10.244.2.0/24', '10.244.3.0/24'].map((text) => parsePrefix(text)!)
  assert.equal(usedUp(all, range), 'nodes hold all 4 subnets of length 24 in 10.244.0.0/22')
  assert.equal(usedUp(all.slice(1), range), undefined)
  assert.equal(usedUp([...all.slice(1), all[1]!], range), undefined)
  assert.equal(usedUp(all, parsePrefix('10.245.0.0/22')!), undefined)
  assert.equal(usedUp([], range), undefined)
})

test('a node made again with other podCIDRs no longer has our subnets', () => {
  const lease = leaseOfNode(node(FLANNEL), PREFIX)!
  assert.equal(hasSubnets(node({}), lease), true)
  assert.equal(hasSubnets(node({}, ['10.244.4.0/24']), lease), false)
  assert.equal(hasSubnets(node({}, []), lease), false)
  assert.equal(hasSubnets(node({}, ['10.244.3.0/33']), lease), false)
})

test('NetworkUnavailable is set to False with the moment of the change', () => {
  const [condition] = (networkAvailable('2026-11-21T10:00:00Z') as { status: { conditions: JsonObject[] } }).status
    .conditions
  assert.equal(condition?.status, 'False')
  assert.equal(condition?.lastTransitionTime, '2026-11-21T10:00:00Z')
})

test('an annotation nested a thousandfold is refused', () => {
  const data = `{"VNI":${'['.repeat(9_999)}${']'.repeat(9_999)}}`
  assert.throws(() => leaseOfNode(node({ ...FLANNEL, 'backend-data': data }), PREFIX), {
    ...{ code: 'LEASE_MALFORMED', message: /backend-data is .*it must be JSON with at most 64 arrays and objects/ }
  })
})
