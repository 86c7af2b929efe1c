// What changes of nodes mean for who listens to leases: heartbeats nothing, and never more than what changed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatLeaseValue, leaseKey } from '../../../../daemon/lease/lease.ts'
import type { LeaseEvent } from '../../../../daemon/lease/store.ts'
import { NodeLeases } from '../../../../daemon/stores/kubernetes/leases.ts'
import type { KubeNode } from '../../../../daemon/stores/kubernetes/record.ts'

const PREFIX = 'flannel.alpha.coreos.com/'
const node = (name: string, cidr: string, annotations: Record<string, string> = {}): KubeNode => ({
  name,
  uid: name,
  podCidrs: cidr === '' ? [] : [cidr],
  annotations: {
    'kube-subnet-manager': 'true',
    'backend-type': 'host-gw',
    'backend-data': 'null',
    'public-ip': `192.0.2.${name.slice(1)}`,
    ...annotations
  },
  networkUnavailable: undefined,
  ready: true
})
const bare = (name: string): KubeNode => ({ ...node(name, '10.244.9.0/24'), annotations: {} })
const shown = (event: LeaseEvent): string => {
  switch (event.kind) {
    case 'list':
      return `list ${event.leases.map(leaseKey).join(' ')}`.trim()
    case 'put':
      return `put ${leaseKey(event.lease)} ${JSON.parse(formatLeaseValue(event.lease)).PublicIP}`
    case 'gone':
      return `gone ${event.key}`
    case 'malformed':
      return `malformed ${event.key}`
  }
}
const all = (events: Iterable<LeaseEvent>) => [...events].map(shown)

test('a list tells of the nodes that publish a lease', () => {
  const leases = new NodeLeases(PREFIX)
  assert.deepEqual(all(leases.listed([node('n1', '10.244.1.0/24'), bare('n2'), node('n3', '')])), [
    'list 10.244.1.0-24'
  ])
  assert.deepEqual(all(leases.listed([])), ['list'])
})

test('a heartbeat means nothing, a new address, type or podCIDR does', () => {
  const leases = new NodeLeases(PREFIX)
  assert.deepEqual(all(leases.put(bare('n1'))), [])
  assert.deepEqual(all(leases.put(node('n1', '10.244.1.0/24'))), ['put 10.244.1.0-24 192.0.2.1'])
  assert.deepEqual(all(leases.put(node('n1', '10.244.1.0/24'))), [])
  const moved = { 'public-ip': '192.0.2.77' }
  assert.deepEqual(all(leases.put(node('n1', '10.244.1.0/24', moved))), ['put 10.244.1.0-24 192.0.2.77'])
  assert.deepEqual(all(leases.put(node('n1', '10.244.2.0/24', moved))), [
    'gone 10.244.1.0-24',
    'put 10.244.2.0-24 192.0.2.77'
  ])
  assert.deepEqual(all(leases.put(bare('n1'))), ['gone 10.244.2.0-24'])
  assert.deepEqual(all(leases.gone('n1')), [])
})

test('a malformed node keeps the lease it was known by, in lists too, and is reported once', () => {
  const leases = new NodeLeases(PREFIX)
  const good = node('n1', '10.244.1.0/24')
  const bad = node('n1', '10.244.1.0/24', { 'public-ip': 'x' })
  assert.deepEqual(all(leases.listed([good])), ['list 10.244.1.0-24'])
  assert.deepEqual(all(leases.put(bad)), ['malformed 10.244.1.0-24'])
  assert.deepEqual(all(leases.put(bad)), [])
  assert.deepEqual(all(leases.listed([bad])), ['list 10.244.1.0-24', 'malformed 10.244.1.0-24'])
  assert.deepEqual(all(leases.put(good)), ['put 10.244.1.0-24 192.0.2.1'])
  assert.deepEqual(all(leases.put(good)), [])
})

test('a node that was malformed from the start is named by its name until it can be understood', () => {
  const leases = new NodeLeases(PREFIX)
  const bad = node('n1', '10.244.1.0/24', { 'backend-data': '{' })
  assert.deepEqual(all(leases.listed([bad])), ['list', 'malformed n1'])
  assert.deepEqual(all(leases.put(node('n1', '10.244.1.0/24'))), ['gone n1', 'put 10.244.1.0-24 192.0.2.1'])
  assert.deepEqual(all(leases.put({ ...bad, name: 'n2' })), ['malformed n2'])
  assert.deepEqual(all(leases.gone('n2')), ['gone n2'])
})

test('of two nodes with one podCIDR the older one’s lease counts, whichever is heard of last, until it goes', () => {
  const leases = new NodeLeases(PREFIX)
  const [older, younger] = [
    { ...node('n2', '10.244.1.0/24'), created: 1_000 },
    { ...node('n1', '10.244.1.0/24'), created: 2_000 }
  ]
  all(leases.listed([older]))
  const [put] = leases.put(younger)
  assert.ok(put?.kind === 'put')
  assert.equal(shown(put), 'put 10.244.1.0-24 192.0.2.2')
  assert.deepEqual(
    put.lease.rivals?.map((rival) => rival.node),
    ['n1']
  )
  assert.deepEqual(all(leases.gone('n2')), ['put 10.244.1.0-24 192.0.2.1'])
  assert.deepEqual(all(leases.listed([younger, older])), ['list 10.244.1.0-24'])
  assert.deepEqual(all(leases.gone('n1')), ['put 10.244.1.0-24 192.0.2.2'])
  assert.deepEqual(all(leases.gone('n2')), ['gone 10.244.1.0-24'])
})

test('the first of the living nodes with a lease is the same for everybody', () => {
  const leases = new NodeLeases(PREFIX)
  const dead = { ...node('n1', '10.244.1.0/24'), ready: false }
  all(leases.listed([dead, bare('n2'), node('n4', '10.244.4.0/24'), node('n3', '10.244.3.0/24')]))
  assert.equal(leases.first, 'n3')
  all(leases.put({ ...dead, ready: true }))
  assert.equal(leases.first, 'n1')
  all(leases.gone('n1'))
  all(leases.put({ ...node('n3', '10.244.3.0/24'), ready: false }))
  assert.equal(leases.first, 'n4')
  all(leases.listed([]))
  assert.equal(leases.first, undefined)
})
