// The nodes' link is a bond of two cards: pods keep reaching each other when one of them fails.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TwoNodes } from './two-nodes.ts'

test('pods reach each other over a bond, and after its active card has failed', async () => {
  await using nodes = await TwoNodes.start({
    iface: 'bond0',
    backend: { Type: 'vxlan' },
    underlay: async (host, n, lab) => {
      await lab.switch.exec('ip', ['-batch', '-'], {
        input: `
link add ${host.name}b type veth peer name eth1 netns ${host.pidInside}
link set ${host.name}b master br0 up
`
      })
      await host.sh(`
ip addr flush dev eth0
ip link add bond0 type bond mode active-backup miimon 50
for card in eth0 eth1; do ip link set $card down; ip link set $card master bond0; done
ip addr add 192.168.10.${10 + n}/24 dev bond0
ip link set bond0 up
ip route add default via 192.168.10.1`)
    }
  })
  await nodes.reach()
  await nodes.carriesFullSize()
  const [host] = nodes.lab.hosts
  assert.ok(host)
  // Not /sys/class/net, which shows the links of the namespace that mounted it.
  const active = async () => {
    const [bond] = (await host.ip('-d', 'link', 'show', 'bond0')) as readonly {
      readonly linkinfo: { readonly info_data: { readonly active_slave: string } }
    }[]
    return String(bond?.linkinfo.info_data.active_slave)
  }
  const before = await active()
  await host.sh(`ip link set ${before} down`)
  await nodes.reach()
  assert.notEqual(await active(), before)
})
