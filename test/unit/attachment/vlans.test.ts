// What a pod in a VLAN of its bridge wants of the kernel, what it reports, and what its port's alias keeps.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { aliasOf, bridgeMac, hostName, parseAlias } from '../../../daemon/attachment/identity.ts'
import { podObjects } from '../../../daemon/attachment/objects.ts'
import { resultOf } from '../../../daemon/attachment/result.ts'
import { parseVlansWord, vlansWord } from '../../../daemon/attachment/vlans.ts'
import { refuseUnfilteredVlans } from '../../../daemon/pod/bridge-vlans.ts'
import { status } from '../../../daemon/pod/status.ts'
import { type KernelObject, type Link, type Mac, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import type { BridgeVlans } from '../../../plugins/attachment.ts'
import { podContext, stillHost } from '../pod/context.ts'
import { testNode } from '../test-node.ts'
import { attachmentOf, poolAddresses } from './attachment.ts'

const node = testNode({ ipv6: false })
const addresses = poolAddresses('10.41.0.2/24')
const wiring = { mode: 'bridge', mtu: 1500, clusterNetworks: [] } as const
const inVlans = (vlans: BridgeVlans, isGateway = false) =>
  attachmentOf({
    interface: {
      bridge: 'br41',
      vlans,
      isDefaultGateway: isGateway,
      like: { kind: 'bridge', isGateway, forcesAddress: false }
    }
  })
const access = (keepsDefault = false): BridgeVlans => ({ access: 100, trunk: [], keepsDefault })
const texts = (objects: readonly KernelObject[]) => objects.map(textOf)

test('a port has its VLAN without a tag, or its trunk, and the default VLAN where that is kept', () => {
  const vlansOf = (vlans: BridgeVlans) =>
    texts(podObjects(inVlans(vlans), addresses, node, wiring).host).filter((text) => text.startsWith('vlans'))
  const port = hostName(attachmentOf())
  assert.deepEqual(vlansOf(access()), [`vlans dev ${port} pvid 100 untagged 100 only`])
  assert.deepEqual(vlansOf(access(true)), [`vlans dev ${port} pvid 100 untagged 100`])
  const trunk = [
    { first: 5, last: 7 },
    { first: 9, last: 9 }
  ]
  assert.deepEqual(vlansOf({ trunk, keepsDefault: false }), [`vlans dev ${port} tagged 5-7,9 only`])
  assert.deepEqual(vlansOf({ trunk: [], keepsDefault: true }), [])
})

test('the gateway of a VLAN is a device of its own on the bridge, which is reported last', () => {
  const pod = inVlans(access(), true)
  assert.deepEqual(texts(podObjects(pod, addresses, node, wiring).bridge), [
    `link br41 type bridge address ${bridgeMac(node.identity, 'br41')} vlan_filtering 1 up`,
    'link br41.100 type vlan id 100 link br41 up',
    'vlans dev br41 tagged 100',
    'sysctl net/ipv4/conf/br41.100/forwarding=1',
    'address 10.41.0.1/24 dev br41.100',
    'route 10.41.0.0/24 dev br41.100 proto 2 scope link src 10.41.0.1'
  ])
  const namesOf = (isGateway: boolean) =>
    resultOf(inVlans(access(), isGateway), addresses, node, wiring).interfaces.map(({ name }) => name)
  assert.deepEqual(namesOf(true), ['br41', hostName(pod), 'eth0', 'br41.100'])
  assert.deepEqual(namesOf(false), ['br41', hostName(pod), 'eth0'])
})

test('the alias keeps the VLANs for a restarted weftd', () => {
  for (const vlans of [
    access(),
    access(true),
    {
      trunk: [
        { first: 5, last: 7 },
        { first: 9, last: 9 }
      ],
      keepsDefault: false
    }
  ]) {
    assert.deepEqual(parseVlansWord(vlansWord(vlans)), vlans)
    const alias = aliasOf(inVlans(vlans), undefined, { name: 'br41', addresses: [], vlans })
    assert.deepEqual(parseAlias(alias)?.bridge, { name: 'br41', addresses: [], vlans })
  }
  for (const word of ['v', 't', 'v1-2', 'v0', 'x5', 't5-', '10.0.0.1/24', 'v5!!'])
    assert.equal(parseVlansWord(word), undefined)
})

test('VLANs that the kernel or the bridge would not keep apart are refused with the cure', async () => {
  const theirs = { kind: 'link', name: 'br41', form: { type: 'bridge' }, mac: '02:00:00:00:00:01' as Mac } as const
  const lacking = podContext()
  await assert.rejects(
    status(
      { ...lacking, kernel: { ...lacking.kernel, filtersVlans: async () => false } },
      { ...inVlans(access(), true), isStandalone: true }
    ),
    { code: 'KERNEL_FEATURE_MISSING' },
    'STATUS names it too'
  )
  const refused = (bridge: Link | undefined, observed: readonly KernelObject[] = [], hasVlans = true) => {
    const context = podContext({ host: { ...stillHost(stateOf(observed)) } })
    const kernel = { ...context.kernel, filtersVlans: async () => hasVlans }
    return refuseUnfilteredVlans(
      { ...context, kernel },
      inVlans(access(), true),
      bridge === undefined ? {} : { bridge }
    )
  }
  await assert.rejects(refused(undefined, [], false), {
    code: 'KERNEL_FEATURE_MISSING',
    message: /CONFIG_BRIDGE_VLAN_FILTERING/
  })
  await assert.rejects(refused({ ...theirs, vlanFiltering: false }), {
    code: 'BRIDGE_INVALID',
    cure: /vlan_filtering 1/
  })
  await refused({ ...theirs, vlanFiltering: true })
  await refused({ ...theirs, vlanFiltering: false, mac: bridgeMac(podContext().self.identity, 'br41') })
  const device = (form: Link['form'] & object): Link => ({ kind: 'link', name: 'br41.100', form })
  await refused(undefined, [device({ type: 'vlan', id: 100, parent: 'br41' })])
  for (const form of [{ type: 'veth' }, { type: 'vlan', id: 101, parent: 'br41' }] as const)
    await assert.rejects(refused(undefined, [device(form)]), { code: 'BRIDGE_INVALID', message: /br41\.100/ })
})
