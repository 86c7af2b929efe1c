// How a pod is connected: the mode where nothing names one, and the bridge's MAC whatever has just happened to it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PodContext, PodPlace } from '../../../daemon/pod/context.ts'
import { wiringOf } from '../../../daemon/pod/wiring.ts'
import { type KernelObject, type Link, type Mac, stateOf } from '../../../daemon/state/object.ts'
import { parseIp } from '../../../ipam/address.ts'
import { attachmentOf } from '../attachment/attachment.ts'
import { testNode } from '../test-node.ts'
import { podContext, stillHost } from './context.ts'

const place: PodPlace = { node: testNode(), mtu: 1450, clusterNetworks: {} }
const bridge = (mac: string): Link => ({ kind: 'link', name: 'cni0', form: { type: 'bridge' }, mac: mac as Mac })

function context(
  defaultMode: PodContext['defaultMode'],
  observed: readonly KernelObject[] = [],
  desired: readonly KernelObject[] = []
): PodContext {
  const host = { ...stillHost(stateOf(observed)), desired: stateOf(desired) }
  return podContext({ host, defaultMode })
}

function withPod(on: PodContext, address: string): PodContext {
  const ip = parseIp(address) ?? assert.fail()
  const who = { network: 'net1', containerId: 'c1', ifname: 'eth0' }
  on.attachments.set({ ...who, link: 'veth1', addresses: [ip], because: 'pod c1' })
  return on
}
const port = (master: string): Link => ({ kind: 'link', name: 'veth1', form: { type: 'veth' }, master })
const modeOf = (on: PodContext) => wiringOf(on, attachmentOf(), place).mode

test('an existing bridge means bridge mode; a fresh node has one but with --pod-mode=routed', () => {
  for (const mode of ['auto', 'bridge', 'routed'] as const)
    assert.equal(modeOf(context(mode, [bridge('02:00:00:00:00:01')])), 'bridge')
  assert.deepEqual(
    [modeOf(context('auto')), modeOf(context('bridge')), modeOf(context('routed'))],
    ['bridge', 'bridge', 'routed']
  )
})

test('auto keeps routed mode on a node whose pods are in it, and looks at pods of the node’s subnet only', () => {
  assert.equal(modeOf(withPod(context('auto', [port('')]), '10.244.1.2')), 'routed')
  assert.equal(modeOf(withPod(context('auto', [port('br7')]), '10.244.1.2')), 'bridge')
  assert.equal(modeOf(withPod(context('auto', [port('')]), '10.99.1.2')), 'bridge')
  assert.equal(modeOf(withPod(context('bridge', [port('')]), '10.244.1.2')), 'bridge')
})

test('the bridge is wanted with the MAC that its other pods want, also while another program has changed or removed it', () => {
  const [ours, theirs] = ['0a:77:00:00:00:01', '02:00:00:00:00:01']
  const macOf = (on: PodContext) => wiringOf(on, attachmentOf(), place).bridge?.mac
  assert.equal(macOf(context('auto', [bridge(theirs)])), theirs)
  assert.equal(macOf(context('auto', [bridge(theirs)], [bridge(ours)])), ours)
  const without = context('routed', [], [bridge(ours)])
  assert.deepEqual([macOf(without), modeOf(without)], [ours, 'bridge'])
})
