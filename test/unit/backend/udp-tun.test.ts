// The udp backend on a kernel without FOU: the objects of this node and of a peer, as text of `ip`.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { isTunnel } from '../../../daemon/state/tunnel.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { stateText } from '../state-text.ts'
import { testNode } from '../test-node.ts'

const backends = registry(BACKENDS)
const udp = backends.configure('udp', {})
const node = testNode({ dataPath: 'tun' })

test('our end is flannel0 with the address and the MTU of flanneld’s, and the socket of the process that serves it', () => {
  const own = udp.own(node)
  assert.equal(
    stateText(stateOf(own)),
    [
      'address 10.244.1.0/32 dev flannel0',
      'link flannel0 type tun mtu 1472 txqueuelen 1000 up',
      'sysctl net/ipv4/conf/flannel0/forwarding=1',
      'sysctl net/ipv4/conf/flannel0/rp_filter=2',
      'sysctl net/ipv6/conf/flannel0/disable_ipv6=1',
      'tunnel flannel0 local 192.0.2.1 port 8285'
    ].join('\n')
  )
  assert.deepEqual(
    own.filter(isTunnel).map(({ kind }) => kind),
    ['tunnel-socket']
  )
  assert.deepEqual(udp.entry?.(node), { outer: 'udp dport 8285', device: 'flannel0' })
})

test('a peer is a route into the device, and its public address for the process', () => {
  const lease = {
    subnet: { 4: parsePrefix('10.244.2.0/24') ?? assert.fail() },
    publicIp: { 4: parseIp('198.51.100.2') ?? assert.fail() },
    ...{ backendType: '', backendData: {} }
  }
  assert.deepEqual(udp.peer(lease, node).map(textOf), [
    'tunnel flannel0 10.244.2.0/24 to 198.51.100.2',
    'route 10.244.2.0/24 dev flannel0 proto 87'
  ])
})

test('a lasting TUN device of the name is ours; that of a flanneld that runs is not, and what is on it is not ours yet', () => {
  assert.equal(backends.recognises({ name: 'flannel0', form: { type: 'tun' } }), 'own')
  assert.equal(backends.recognises({ name: 'flannel0', form: { type: 'other', of: 'tun' } }), 'foreign')
  assert.equal(backends.recognises({ name: 'flannel0' }), 'adoptable')
  assert.equal(backends.recognises({ name: 'tun0', form: { type: 'tun' } }), undefined)
})
