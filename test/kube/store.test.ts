// The Kubernetes store on a real API server: flannel's annotations, diagnosis of a missing podCIDR, recovery after
// failures.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { KubeApi } from '../../daemon/kube/api.ts'
import { KubeAccess, targetOf } from '../../daemon/kube/credentials.ts'
import { listOf } from '../../daemon/kube/protobuf.ts'
import { leaseKey } from '../../daemon/lease/lease.ts'
import { nodeOf } from '../../daemon/stores/kubernetes/node.ts'
import { networkAvailable } from '../../daemon/stores/kubernetes/record.ts'
import { formatIp } from '../../ipam/address.ts'
import { until } from '../lab/run.ts'
import { storeContract } from '../lab/store-contract.ts'
import { CONFIG, Conditions, Watcher, wishOf } from '../lab/store-watcher.ts'
import { conditionOf } from './api.ts'
import { ApiAlone } from './api-alone.ts'
import { noControlPlane } from './parts.ts'
import { allow, annotationsOn, flannel, PREFIX, StorePlace, USER } from './store-scene.ts'

const never = new AbortController().signal
const VXLAN = '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
const skip = noControlPlane()
/** Events of a watch on a busy machine. */
const slow = { deadlineMs: 30_000 }

describe('the kubernetes store', { skip, timeout: 300_000 }, () => {
  let api: ApiAlone
  before(async () => {
    api = await ApiAlone.start()
    await allow(api)
  })
  after(() => api?.[Symbol.asyncDispose]())

  storeContract(async () => (await StorePlace.make(api)).network())

  test('leaves away what podCIDRs decide in place of the configuration', async () => {
    await using place = await StorePlace.make(api)
    await using store = await place.open(new Conditions())
    place.configure('{"Network":"10.77.0.0/16","subnetLen":3,"SubnetMin":"x","Backend":{"Type":"vxlan"}}')
    assert.equal(await store.configuration(never), CONFIG)
  })

  test('a node without our annotations is no lease, before and after', async () => {
    await using place = await StorePlace.make(api)
    await place.add('bare', { podCidrs: ['10.77.8.0/24'] })
    await using store = await place.open(new Conditions())
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the first list', ...slow })
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'the one lease', ...slow })
    await place.annotate('n2', { 'kube-subnet-manager': null })
    await until(() => watcher.keys.length === 0, { what: 'the end of the lease', ...slow })
    assert.equal(watcher.malformed.size, 0)
  })

  test('publishes flannel’s annotations, and writes nothing when they are right already', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const take = async () => {
      await using store = await place.open(new Conditions())
      return await store.acquire(wishOf('192.0.2.1'), never)
    }
    assert.equal(leaseKey(await take()), '10.77.1.0-24')
    const node = await place.node()
    assert.deepEqual(annotationsOn(node), {
      'kube-subnet-manager': 'true',
      'backend-type': 'vxlan',
      'backend-data': VXLAN,
      'public-ip': '192.0.2.1'
    })
    await take()
    assert.equal((await place.node()).metadata.resourceVersion, node.metadata.resourceVersion)
  })

  test('keeps the VTEP MAC that flanneld published, and removes what belongs to a family that is off', async () => {
    await using place = await StorePlace.make(api)
    const before = flannel('192.0.2.9', {
      'backend-data': '{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}',
      'public-ipv6': '2001:db8::1',
      'backend-v6-data': 'null'
    })
    await place.add('n1', { podCidrs: ['10.77.1.0/24', 'fd00:77:0:1::/64'], annotations: before })
    await using store = await place.open(new Conditions())
    const lease = await store.acquire(wishOf('192.0.2.1'), never)
    assert.deepEqual(lease.backendData, { 4: { VNI: 1, VtepMAC: 'aa:bb:cc:dd:ee:ff' } })
    assert.deepEqual(annotationsOn(await place.node()), {
      'kube-subnet-manager': 'true',
      'backend-type': 'vxlan',
      'backend-data': '{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}',
      'public-ip': '192.0.2.1'
    })
  })

  test('leases both families together', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24', 'fd00:77:0:1::/64'] })
    await using store = await place.open(new Conditions())
    const conf = '{"Network":"10.77.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:77::/48"}'
    const wish = wishOf('192.0.2.1', { conf })
    const both = { 4: wish.publicIp[4]!, 6: wishOf('2001:db8::1').publicIp[6]! }
    const lease = await store.acquire({ ...wish, publicIp: both }, never)
    assert.equal(leaseKey(lease), '10.77.1.0-24&fd00:77:0:1::-64')
    assert.deepEqual(annotationsOn(await place.node()), {
      ...flannel('192.0.2.1', { 'backend-data': VXLAN }),
      'public-ipv6': '2001:db8::1',
      'backend-v6-data': 'null'
    })
    await using watcher = new Watcher(store)
    await until(() => watcher.keys.join() === '10.77.1.0-24&fd00:77:0:1::-64', { what: 'the lease in the watch' })
  })

  test('says that no podCIDR is there and how it is with the others, and goes on when one comes', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n2', { podCidrs: ['10.77.2.0/24'] })
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    await until(() => conditions.active.has('NODE_UNKNOWN'), { what: 'the condition NODE_UNKNOWN', ...slow })
    assert.match(conditions.active.get('NODE_UNKNOWN')!, /has no node n1/)
    await place.add('n1')
    await until(() => conditions.active.has('POD_CIDR_MISSING'), { what: 'the condition POD_CIDR_MISSING', ...slow })
    assert.equal(conditions.active.get('POD_CIDR_MISSING'), 'node n1 has no podCIDR; 1 of the 1 other nodes have one')
    assert.equal(conditions.active.size, 1)
    await api.api.patch('/api/v1/nodes/n1', { spec: { podCIDR: '10.77.1.0/24', podCIDRs: ['10.77.1.0/24'] } })
    assert.equal(leaseKey(await taking), '10.77.1.0-24')
    assert.equal(conditions.active.size, 0)
  })

  test('says that podCIDRs are used up, by the controller manager’s event or by what the nodes hold', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1')
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    const event = await api.api.call<{ metadata: { name: string } }>('POST', '/api/v1/namespaces/default/events', {
      metadata: { generateName: 'n1.', namespace: 'default' },
      involvedObject: { apiVersion: 'v1', kind: 'Node', name: 'n1' },
      ...{ reason: 'CIDRNotAvailable', message: 'Node n1 status is now: CIDRNotAvailable', type: 'Normal' },
      source: { component: 'cidrAllocator' }
    })
    const stop = new AbortController()
    const waiting = store.acquire(wishOf('192.0.2.1'), stop.signal)
    await until(() => conditions.active.has('POD_CIDRS_EXHAUSTED'), { what: 'POD_CIDRS_EXHAUSTED', ...slow })
    assert.match(
      conditions.active.get('POD_CIDRS_EXHAUSTED')!,
      /n1 has no podCIDR: the controller manager has none left/
    )
    stop.abort()
    await assert.rejects(waiting, { name: 'AbortError' })
    await api.api.remove(`/api/v1/namespaces/default/events/${event.metadata.name}`)

    for (const at of [0, 1, 2, 3]) await place.add(`m${at}`, { podCidrs: [`10.77.${64 * at}.0/18`] })
    const full = new Conditions()
    await using other = await place.open(full)
    const stopOther = new AbortController()
    const again = other.acquire(wishOf('192.0.2.1'), stopOther.signal)
    await until(() => full.active.has('POD_CIDRS_EXHAUSTED'), { what: 'POD_CIDRS_EXHAUSTED', ...slow })
    assert.match(full.active.get('POD_CIDRS_EXHAUSTED')!, /nodes hold all 4 subnets of length 18 in 10\.77\.0\.0\/16/)
    stopOther.abort()
    await assert.rejects(again, { name: 'AbortError' })
  })

  test('says that the podCIDR lies outside Network', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.99.1.0/24'] })
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    const stop = new AbortController()
    const waiting = store.acquire(wishOf('192.0.2.1'), stop.signal)
    await until(() => conditions.active.has('POD_CIDR_OUTSIDE'), { what: 'POD_CIDR_OUTSIDE', ...slow })
    assert.equal(
      conditions.active.get('POD_CIDR_OUTSIDE'),
      'podCIDR 10.99.1.0/24 of node n1 lies outside Network 10.77.0.0/16'
    )
    stop.abort()
    await assert.rejects(waiting, { name: 'AbortError' })
  })

  test('publishes what an administrator overwrites, at once when it changes, and tells what is no address', async () => {
    await using place = await StorePlace.make(api)
    const conditions = new Conditions()
    await place.add('n1', { podCidrs: ['10.77.1.0/24'], annotations: { 'public-ip-overwrite': '198.51.100.1' } })
    await using store = await place.open(conditions)
    await using watcher = new Watcher(store)
    const lease = await store.acquire(wishOf('192.0.2.1'), never)
    assert.equal(lease.publicIp[4] && formatIp(lease.publicIp[4]), '198.51.100.1')
    const published = async (ip: string) => annotationsOn(await place.node())['public-ip'] === ip
    assert.ok(await published('198.51.100.1'))
    await until(() => watcher.keys.length === 1, { what: 'our lease in the watch', ...slow })
    await place.annotate('n1', { 'public-ip-overwrite': '203.0.113.1' })
    await until(() => published('203.0.113.1'), { what: 'the new address', ...slow })
    await place.annotate('n1', { 'public-ip-overwrite': 'gateway' })
    await until(() => published('192.0.2.1'), { what: 'the detected address', ...slow })
    assert.match(conditions.active.get('NODE_ANNOTATION_INVALID')!, /public-ip-overwrite of node n1 is "gateway"/)
    await place.annotate('n1', { 'public-ip-overwrite': null, 'node-public-ip': '203.0.113.2' })
    await until(() => published('203.0.113.2'), { what: 'the address of node-public-ip', ...slow })
    assert.equal(conditions.active.size, 0)
  })

  test('writes its annotations again when somebody changes or removes them', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    await using watcher = new Watcher(store)
    await store.acquire(wishOf('192.0.2.1'), never)
    const wanted = annotationsOn(await place.node())
    await until(() => watcher.keys.length === 1, { what: 'our lease in the watch', ...slow })
    for (const spoilt of [{ 'backend-data': '{"VNI":2}' }, { 'kube-subnet-manager': null, 'public-ip': null }]) {
      await place.annotate('n1', spoilt)
      await until(async () => JSON.stringify(annotationsOn(await place.node())) === JSON.stringify(wanted), {
        what: `our annotations after ${JSON.stringify(spoilt)}`,
        ...slow
      })
    }
    assert.ok(conditions.logged.includes('our annotations were changed by another program and are written again'))
    await until(() => watcher.keys.join() === '10.77.1.0-24', { what: 'our lease', ...slow })
  })

  test('sets NetworkUnavailable to False once the network works, and again when a node is made again', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    await using _ = new Watcher(store)
    await store.acquire(wishOf('192.0.2.1'), never)
    assert.equal(conditionOf(await place.node(), 'NetworkUnavailable'), undefined)
    store.announce()
    const available = async () => conditionOf(await place.node(), 'NetworkUnavailable')?.status === 'False'
    await until(available, { what: 'NetworkUnavailable=False', ...slow })
    assert.equal(conditionOf(await place.node(), 'NetworkUnavailable')?.reason, 'WeftIsUp')
    await place.remove('n1')
    await until(() => conditions.active.has('NODE_UNKNOWN'), { what: 'the condition NODE_UNKNOWN', ...slow })
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    await until(available, { what: 'the condition of the new node', deadlineMs: 60_000 })
    assert.equal(annotationsOn(await place.node())['public-ip'], '192.0.2.1')
    assert.equal(conditions.active.size, 0)
    await place.remove('n1')
    await place.add('n1', { podCidrs: ['10.77.9.0/24'] })
    await until(() => conditions.active.has('LEASE_LOST'), { what: 'LEASE_LOST', deadlineMs: 60_000 })
    assert.match(conditions.active.get('LEASE_LOST')!, /was recreated and now has 10\.77\.9\.0\/24/)
  })

  test('finds its node by the pod it runs in', async () => {
    await using place = await StorePlace.make(api)
    await place.add('somewhere', { podCidrs: ['10.77.1.0/24'] })
    await api.api.call('POST', '/api/v1/namespaces/default/pods', {
      metadata: { name: 'weftd-abc' },
      spec: { nodeName: 'somewhere', containers: [{ name: 'weftd', image: 'weft' }] }
    })
    await using store = await place.open(new Conditions(), {
      nodeName: '',
      podName: 'weftd-abc',
      podNamespace: 'default'
    })
    assert.equal((await store.acquire(wishOf('192.0.2.1'), never)).node, 'somewhere')
    await using lost = await place.open(new Conditions(), { nodeName: '', podName: 'gone', podNamespace: 'default' })
    await assert.rejects(lost.acquire(wishOf('192.0.2.1'), never), { code: 'NODE_UNKNOWN', message: /default\/gone/ })
    await api.api.remove('/api/v1/namespaces/default/pods/weftd-abc?gracePeriodSeconds=0')
  })

  test('reads of a real node the same in protobuf as in JSON', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24', 'fd00:77:0:1::/64'], annotations: flannel('192.0.2.1') })
    const now = '2026-11-21T10:00:00Z'
    await api.api.patch('/api/v1/nodes/n1/status', networkAvailable(now))
    const target = await targetOf({ kubeconfigFile: await api.kubeconfig(USER), environment: {} })
    const access = await KubeAccess.open(target, () => performance.now())
    await using client = new KubeApi(access, new Conditions().deps.report)
    const read = async (path: string, protobuf: boolean) => {
      const { object } = await client.call({ verb: 'GET', path, protobuf }, never)
      assert.equal(object.format, protobuf ? 'protobuf' : 'json')
      return object
    }
    const nodes = [await read('/api/v1/nodes/n1', false), await read('/api/v1/nodes/n1', true)]
    const [one, other] = nodes.map((object) => nodeOf(object, PREFIX))
    assert.deepEqual(one, other)
    assert.equal(one?.networkUnavailable, 'False')
    assert.deepEqual(one?.podCidrs, ['10.77.1.0/24', 'fd00:77:0:1::/64'])
    const lists = [await read('/api/v1/nodes', false), await read('/api/v1/nodes', true)].map(listOf)
    assert.deepEqual(
      lists[1]!.items.map((item) => nodeOf(item, PREFIX)),
      [one]
    )
    assert.equal(lists[0]!.version, lists[1]!.version)
    for (const protobuf of [false, true]) {
      const { status, body } = await client.call({ verb: 'GET', path: '/api/v1/nodes/nobody', protobuf }, never)
      assert.deepEqual([status, body.reason, body.code], [404, 'NotFound', 404])
    }
  })

  test('lists page by page', async () => {
    await using place = await StorePlace.make(api)
    for (let at = 0; at < 7; at++)
      await place.add(`n${at}`, { podCidrs: [`10.77.${at}.0/24`], annotations: flannel(`192.0.2.${at + 1}`) })
    await using store = await place.open(new Conditions(), { pace: { page: 3 } })
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the list', ...slow })
    assert.equal(watcher.keys.length, 7)
  })
})
