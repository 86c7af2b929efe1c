// VLANs of the bridge plugin: who reaches whom, what the ports have, who repairs them, and what DEL leaves.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CniHost } from '../../cni/cni-host.ts'
import { callsOf, interfacesOf, subjects } from '../../cni/subjects.ts'
import { BIN } from '../../lab/cluster.ts'
import type { Json } from '../../lab/cni.ts'
import { until } from '../../lab/run.ts'

const subject = subjects.find(({ type }) => type === 'bridge')
assert.ok(subject)

/** Milliseconds that weftd has to become ready: the guest is emulated. */
const READY_MS = 240_000

type Vlan = { readonly vlan: number; readonly vlanEnd?: number; readonly flags?: readonly string[] }

test('VLANs of the bridge plugin', { timeout: 1_200_000 }, async () => {
  await using at = await CniHost.start([], { deadlineMs: READY_MS })
  const { host } = at
  const { added, isClean } = callsOf(subject, () => at)
  const access = (vlan: number): Json => ({
    ...{ ...subject.network('10.41.0.0/24'), isDefaultGateway: false, ipMasq: false },
    ...{ name: `net${vlan}`, bridge: 'br41', vlan, preserveDefaultVlan: false },
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.41.0.0/24', rangeStart: `10.41.0.${vlan}` }]] }
  })
  const vlansOf = async (device: string): Promise<string> => {
    const { stdout } = await host.exec('bridge', ['-json', '-compressvlans', 'vlan', 'show', 'dev', device])
    const [port] = JSON.parse(stdout || '[]') as readonly { readonly vlans: readonly Vlan[] }[]
    return (port?.vlans ?? [])
      .map(({ vlan, vlanEnd, flags = [] }) => [`${vlan}${vlanEnd ? `-${vlanEnd}` : ''}`, ...flags].join(' '))
      .join(', ')
  }
  const soon = (condition: () => Promise<boolean>, what: string) =>
    until(condition, { what, deadlineMs: READY_MS, everyMs: 200 })
  const become = (device: string, vlans: string) =>
    soon(async () => (await vlansOf(device)) === vlans, `${device} to have the VLANs ${vlans}`)
  const portOf = (result: Json) => String(interfacesOf(result)[1]?.name)
  const reaches = async (from: (typeof one)['pod'], to: string) => (await from.ping(to)).received === 1

  const [one, two, other] = [await added(access(100)), await added(access(100)), await added(access(200))]
  const port = portOf(one.result)
  const only100 = '100 PVID Egress Untagged'
  assert.equal(await vlansOf(port), only100)
  assert.deepEqual(
    [await reaches(one.pod, two.address), await reaches(one.pod, other.address)],
    [true, false],
    'one VLAN is one network'
  )

  const trunk = await added({
    ...access(0),
    ...{ name: 'trunk', vlan: 0, ipam: {}, vlanTrunk: [{ minID: 100, maxID: 102 }, { id: 200 }] }
  })
  assert.equal(await vlansOf(portOf(trunk.result)), '100-102, 200')
  await trunk.pod.sh(`
for id in 100 200; do
  ip link add link eth0 name eth0.$id type vlan id $id
  ip addr add 10.41.0.$((id + 50))/24 dev eth0.$id
  ip link set eth0.$id up
  ip route add 10.41.0.$id dev eth0.$id
done`)
  for (const to of [one.address, other.address]) assert.equal(await reaches(trunk.pod, to), true, `tagged, to ${to}`)

  const keeping = await added({ ...access(100), name: 'keeping', preserveDefaultVlan: true })
  assert.equal(await vlansOf(portOf(keeping.result)), '1 Egress Untagged, 100 PVID Egress Untagged')

  const gateway = await added({
    ...subject.network('10.42.0.0/24', 'fd00:42::/64'),
    name: 'net42',
    bridge: 'br41',
    vlan: 300
  })
  assert.deepEqual(
    interfacesOf(gateway.result).map(({ name }) => String(name).replace(/^veth.*/, 'veth')),
    ['br41', 'veth', 'eth0', 'br41.300']
  )
  const [device] = (await host.ip('-d', 'link', 'show', 'br41.300')) as readonly Json[]
  assert.equal(device?.address, interfacesOf(gateway.result)[3]?.mac)
  for (const to of ['10.42.0.1', 'fd00:42::1', host.address]) assert.equal(await reaches(gateway.pod, to), true, to)

  const isolation = { config: { ingressPolicy: 'same-bridge', prevResult: gateway.result }, pod: gateway.pod }
  await at.ok('ADD', 'firewall', isolation)
  assert.match(await at.ruleset(), /iifname "br41\.300" oifname != "br41\.300"/)

  // The bridge gets its port's MTU after the VLAN's device was made.
  const large = await added({
    ...subject.network('10.43.0.0/24'),
    ...{ name: 'net43', bridge: 'br43', vlan: 300, mtu: 9000 }
  })
  const mtuOf = async (link: string) => Number(((await host.ip('link', 'show', link)) as readonly Json[])[0]?.mtu)
  await soon(async () => (await mtuOf('br43.300')) === 9000, 'the gateway of a VLAN to have the MTU of its bridge')

  const differences = () => host.exec(`${BIN}/../bin/weftctl`, ['diff'], { check: false })
  await soon(async () => (await differences()).code === 0, 'weftctl diff to find nothing')

  const all = [one, two, other, trunk, keeping, gateway]

  await host.sh(`bridge vlan del dev ${port} vid 100; bridge vlan add dev ${port} vid 200 pvid untagged`)
  await become(port, only100)
  await host.exec('bridge', ['vlan', 'del', 'dev', 'br41', 'vid', '300', 'self'])
  await soon(() => reaches(gateway.pod, '10.42.0.1'), 'the gateway of VLAN 300 to be back')
  await host.exec('ip', ['link', 'set', 'br41', 'type', 'bridge', 'vlan_filtering', '0'])
  await soon(
    async () => /vlan_filtering 1 /.test((await host.exec('ip', ['-d', 'link', 'show', 'br41'])).stdout),
    'the bridge to filter VLANs again'
  )
  await host.exec('ip', ['link', 'del', 'br41'])
  await soon(() => reaches(gateway.pod, '10.42.0.1'), 'the bridge to be back with its VLANs')
  await become(port, only100)

  const daemon = at.cluster.daemon(1)
  await daemon.kill('SIGKILL')
  await host.sh(`bridge vlan del dev ${port} vid 100; ip link del br41.300`)
  await daemon.restart()
  await become(port, only100)
  await soon(() => reaches(gateway.pod, '10.42.0.1'), 'the gateway to be back after a restart')
  await Promise.all(
    all.map(({ call, result }) => at.ok('CHECK', 'bridge', { ...call, config: { ...call.config, prevResult: result } }))
  )

  assert.match(await at.ruleset(), /iifname "br41\.300" oifname != "br41\.300"/)

  await at.ok('DEL', 'firewall', isolation)
  await Promise.all([...all, large].map((each) => each.del()))
  for (const bridge of ['br41', 'br43']) await host.exec('ip', ['link', 'del', bridge])
  assert.deepEqual([await at.links(), await at.reserved('net100')], [[], []])
  await isClean()
})
