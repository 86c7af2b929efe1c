// The nodes' link belongs to a VRF, as on routers and hosts with a management network: what the tunnel sends and
// receives goes by the VRF's table, what pods send by the main one.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BIN } from '../../lab/cluster.ts'
import type { Host } from '../../lab/host.ts'
import { TwoNodes } from './two-nodes.ts'

type Way = { readonly dev: string }

/** The device by which the host sends to an address; `undefined`: it has no route. */
async function wayTo(host: Host, ...asked: readonly string[]): Promise<string | undefined> {
  const { code, stdout } = await host.exec('ip', ['-json', 'route', 'get', ...asked], { check: false })
  return code === 0 ? (JSON.parse(stdout) as readonly Way[])[0]?.dev : undefined
}

test('pods reach each other when the link is in a VRF: through the tunnel, whose packets go by the VRF', async () => {
  await using nodes = await TwoNodes.start({
    iface: 'eth0',
    backend: { Type: 'vxlan', DirectRouting: true },
    underlay: async (host) => {
      await host.sh(`
ip link add mgmt type vrf table 10
ip link set mgmt up
ip link set eth0 master mgmt
ip route replace default via 192.168.10.1 dev eth0 vrf mgmt`)
    }
  })
  await nodes.reach()
  await nodes.carriesFullSize()
  const sent = async (host: Host) =>
    Number((await host.exec('cat', ['/proc/net/dev'])).stdout.match(/weft\.1:(?:\s+\d+){9}\s+(\d+)/)?.[1])
  for (const [index, { host }] of nodes.pods.entries()) {
    const other = nodes.pods[1 - index]
    assert.ok(other)
    assert.equal(await wayTo(host, other.host.address), undefined, 'the main table has no route to the other node')
    assert.equal(await wayTo(host, other.host.address, 'vrf', 'mgmt'), 'eth0')
    // A plain route would leave the VRF's table out: DirectRouting does not apply.
    assert.equal(await wayTo(host, other.address), 'weft.1')
    assert.ok((await sent(host)) > 0, `${host.name} has sent through the tunnel`)
    const { stdout } = await host.exec(`${BIN}/../bin/weftctl`, ['status', '--json'])
    const { conditions } = JSON.parse(stdout) as { readonly conditions: readonly { readonly code: string }[] }
    assert.deepEqual(
      conditions.map(({ code }) => code),
      [],
      'nothing is wrong with it'
    )
  }
})
