// The `loopback` plugin: nothing in a configuration can keep `lo` down.
import { deepEqual, equal } from 'node:assert/strict'
import { test } from 'node:test'
import type { AddCall } from '../../../../plugins/cni/types.ts'
import { loopback } from '../../../../plugins/types/loopback.ts'

const call: AddCall = {
  verb: 'ADD',
  plugin: 'loopback',
  network: 'cni-loopback',
  version: '0.3.1',
  configuration: { name: 'cni-loopback', type: 'loopback', runtimeConfig: 5 },
  containerId: 'c1',
  ifname: 'lo',
  netns: '/run/netns/c1',
  args: 'IgnoreUnknown=1;K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=default',
  path: [],
  mayBeOwnNamespace: false
}

test('it asks for lo and for no address', () => {
  deepEqual(loopback.attachment(call), {
    network: 'cni-loopback',
    containerId: 'c1',
    ifname: 'lo',
    plugin: 'loopback',
    sandbox: '/run/netns/c1',
    pod: { namespace: 'default', name: 'web-1' },
    because: 'pod default/web-1, lo in network cni-loopback (container c1)',
    interface: { kind: 'loopback' }
  })
})

test('CNI_ARGS that cannot be read only lose the name of the pod', () => {
  equal(loopback.attachment({ ...call, args: 'x' }).pod, undefined)
  equal(loopback.attachment({ ...call, args: 'FOO=1;K8S_POD_NAME=a' }).pod?.name, 'a')
})
