// The nodes' link belongs to a VRF, as on routers and hosts with a management network: what the tunnel sends and
// receives goes by the VRF's table, what pods send by the main one.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TwoNodes } from './two-nodes.ts'

test('pods reach each other when the link is in a VRF', async () => {
  await using nodes = await TwoNodes.start({
    iface: 'eth0',
    backend: { Type: 'vxlan', DirectRouting: true },
    underlay: async (host, n) => {
      await host.sh(`
ip link add mgmt type vrf table 10
ip link set mgmt up
ip link set eth0 master mgmt
ip route replace default via 192.168.10.1 dev eth0 vrf mgmt`)
      assert.ok(n > 0)
    }
  })
  await nodes.reach()
  await nodes.carriesFullSize()
})
