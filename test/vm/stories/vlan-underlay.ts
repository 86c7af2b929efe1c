// The nodes' link is a VLAN of their card: the tunnel and direct routes go through it, tagged.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TwoNodes } from './two-nodes.ts'

for (const backend of [{ Type: 'vxlan' }, { Type: 'host-gw' }])
  test(`pods reach each other over a VLAN with ${backend.Type}`, async () => {
    await using nodes = await TwoNodes.start({
      iface: 'eth0.42',
      backend,
      underlay: async (host, n) => {
        await host.sh(`
ip addr flush dev eth0
ip link add link eth0 name eth0.42 type vlan id 42
ip addr add 192.168.42.${n}/24 dev eth0.42
ip link set eth0.42 up
ip route add default via 192.168.42.254`)
      }
    })
    await nodes.reach()
    await nodes.carriesFullSize()
    const [host] = nodes.lab.hosts
    assert.ok(host)
    const [link] = (await host.ip('-s', 'link', 'show', 'eth0.42')) as readonly {
      readonly stats64: { readonly tx: { readonly packets: number } }
    }[]
    assert.ok((link?.stats64.tx.packets ?? 0) > 0)
  })
