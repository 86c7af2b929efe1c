// Bridges and what is on them: routes of several interfaces, bridges that vanish, ports that are kept apart, over
// Weft's own plugin and over bridge.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { vlanTrial } from '../../daemon/kernel/features.ts'
import type { Json } from '../lab/cni.ts'
import { until } from '../lab/run.ts'
import { CniHost, skip } from './cni-host.ts'
import { callsOf, interfacesOf, subjects } from './subjects.ts'

/** Otherwise test/vm has the story. */
const hasVlans = skip === false && (await vlanTrial()()) && 'this kernel filters VLANs'
const weftctl = fileURLToPath(new URL('../../daemon/ctl/main.ts', import.meta.url))

for (const subject of subjects) {
  const { type, network } = subject
  describe(`${type}: bridges`, { skip, timeout: 600_000 }, () => {
    let at: CniHost
    before(async () => {
      at = await CniHost.start()
    })
    after(() => at[Symbol.asyncDispose]())

    const { config, isClean, added } = callsOf(subject, () => at)

    test("a second interface's default route stands behind the first's, and takes over when the first goes", async () => {
      const one = await added()
      const other = { ...network('10.11.0.0/24'), name: 'net11', bridge: 'br11' }
      const two = await added(other, { pod: one.pod, ifname: 'eth1' })
      const defaults = async () =>
        (await one.pod.exec('ip', ['route', 'show', 'default'])).stdout.split('\n').map((line) => line.trim())
      const [first = '', second = ''] = await defaults()
      assert.match(first, /via 10\.10\.0\.1 dev eth0/)
      assert.match(second, /via 10\.11\.0\.1 dev eth1 .*metric 1/)
      for (const { call, result } of [one, two])
        await at.ok('CHECK', type, { ...call, config: { ...call.config, prevResult: result } })
      await one.del()
      assert.match((await defaults())[0] ?? '', /via 10\.11\.0\.1 dev eth1/)
      assert.equal((await one.pod.ping(at.host.address)).received, 1)
      await two.del()
      await isClean()
    })

    test('a bridge is wished for as long as a pod is on it, and not by an ADD that failed', async () => {
      const own: Json = { ...network('10.35.0.0/24'), bridge: 'br35', name: 'net35' }
      const wished = async () => {
        await at.host.exec('ip', ['link', 'del', 'br35'], { check: false })
        const { stdout } = await at.host.exec(process.execPath, [weftctl, 'diff', '--json'], { check: false })
        return stdout.includes('br35')
      }
      const unreachable = { ipam: { ...(own.ipam as Json), routes: [{ dst: '10.98.0.0/16', gw: '10.77.0.9' }] } }
      await at.fails('ADD', type, { config: { ...own, ...unreachable }, pod: await at.pod() }, /10\.77\.0\.9/)
      assert.equal(await wished(), false)
      const [one, two] = [await added(own), await added(own)]
      await one.del()
      await at.host.exec('ip', ['link', 'del', 'br35'])
      await until(async () => (await two.pod.ping('10.35.0.1')).received === 1, { what: 'the bridge to come back' })
      await two.del()
      assert.equal(await wished(), false)
      await isClean()
    })

    test('a bridge that goes while weftd is away is made again for the pods that were on it', async () => {
      const dual = { ...network('10.36.0.0/24', 'fd00:36::/64'), name: 'net36', bridge: 'br36' }
      const [one, two] = [await added(dual), await added(dual)]
      await at.cluster.daemon(1).kill('SIGKILL')
      await at.host.exec('ip', ['link', 'del', 'br36'])
      await at.cluster.daemon(1).restart()
      for (const to of ['10.36.0.1', 'fd00:36::1', two.address])
        await until(async () => (await one.pod.ping(to)).received === 1, { what: `${to} to answer` })
      for (const each of [one, two]) await each.del()
      await at.host.exec('ip', ['link', 'del', 'br36'])
      await isClean()
    })

    test('CNI_NETNS_OVERRIDE lets the namespace be the host’s own', async () => {
      const pod = await at.pod()
      await at.host.sh('touch /run/netns/own; mount --bind /proc/self/ns/net /run/netns/own')
      const call = { config, id: pod.name, ifname: 'own0', netns: '/run/netns/own' }
      await at.fails('ADD', type, call, /own/, 8)
      const env = { CNI_NETNS_OVERRIDE: 'true' }
      await at.ok('ADD', type, { ...call, env, config: { ...config, isDefaultGateway: false } })
      assert.match((await at.host.exec('ip', ['-o', 'addr', 'show', 'own0'])).stdout, /10\.10\.0\.\d+\/24/)
      await at.ok('DEL', type, { ...call, env })
      await at.host.sh('umount /run/netns/own; rm /run/netns/own')
      await isClean()
    })

    test('promiscMode makes the bridge promiscuous, which it is again when somebody switches it off', async () => {
      const one = await added({ ...network('10.37.0.0/24'), name: 'net37', bridge: 'br37', promiscMode: true })
      const flags = async () => (await at.host.exec('ip', ['link', 'show', 'br37'])).stdout
      assert.match(await flags(), /PROMISC/)
      await at.host.exec('ip', ['link', 'set', 'br37', 'promisc', 'off'])
      await until(async () => (await flags()).includes('PROMISC'), { what: 'the bridge to be promiscuous again' })
      await one.del()
      await at.host.exec('ip', ['link', 'del', 'br37'])
    })

    if (type === 'weft')
      test('two networks with one subnet in routed mode do not take an address of each other', async () => {
        const routed = (name: string): Json => ({
          name,
          mode: 'routed',
          ipam: { ranges: [[{ subnet: '10.39.0.0/24' }]] }
        })
        const [one, two] = [await added(routed('routed1')), await added(routed('routed2'))]
        assert.notEqual(one.address, two.address)
        for (const each of [one, two])
          assert.match((await at.host.sh(`ip route show ${each.address}`)).stdout, /proto 87/)
        const asked = { config: routed('routed2'), pod: await at.pod() }
        await at.fails('ADD', type, { ...asked, args: `IP=${one.address}` }, /container of another network/, 104)
        const ipam = { type: 'static', addresses: [{ address: `${one.address}/24`, gateway: '10.39.0.1' }] }
        const fixed = { ...asked, config: { name: 'fixed', ipam } }
        await at.fails('ADD', 'ptp', fixed, new RegExp(`${one.address}.*is already routed to .*routed1`), 103)
        assert.equal((await one.pod.ping('10.39.0.1')).received, 1)
        for (const each of [one, two]) await each.del()
        await at.ok('ADD', 'ptp', fixed)
        await at.ok('DEL', 'ptp', fixed)
        await isClean()
      })

    if (type === 'bridge') {
      test('VLANs are refused by the option that the kernel lacks, and nothing is left', {
        skip: hasVlans
      }, async () => {
        const vlan = { ...network('10.34.0.0/24'), name: 'net34', bridge: 'br34', vlan: 100 }
        const trunk = { ...vlan, vlan: 0, vlanTrunk: [{ minID: 10, maxID: 20 }] }
        for (const asked of [vlan, trunk])
          for (const call of [{ verb: 'ADD', pod: await at.pod() }, { verb: 'STATUS' }] as const)
            await at.fails(call.verb, type, { config: asked, ...call }, /CONFIG_BRIDGE_VLAN_FILTERING/, 2)
        assert.ok(!(await at.links()).some((name) => name.startsWith('br34')))
        assert.deepEqual(await at.reserved('net34'), [])
        await isClean()
      })

      test('an address that comes back with a configured MAC is reached at once by those that knew another', async () => {
        const addresses = [
          { address: '10.36.0.7/24', gateway: '10.36.0.1' },
          { address: 'fd00:36::7/64', gateway: 'fd00:36::1' }
        ]
        const at7 = { type: 'static', addresses }
        const on36 = { ...network('10.36.0.0/24', 'fd00:36::/64'), name: 'net36', bridge: 'br36' }
        const [other, first] = [await added(on36), await added({ ...on36, name: 'static36', ipam: at7 })]
        const isReached = async () => {
          for (const to of ['10.36.0.7', 'fd00:36::7']) assert.equal((await other.pod.ping(to)).received, 1, to)
        }
        await isReached()
        await first.del()
        const mac = '02:00:00:00:00:36'
        const second = await added({ ...on36, name: 'static36', ipam: at7, runtimeConfig: { mac } })
        await isReached()
        for (const each of [other, second]) await each.del()
        await at.host.exec('ip', ['link', 'del', 'br36'])
      })

      test('macspoofchk drops frames with another address, also after a restart of weftd, and is gone after DEL', async () => {
        const checked = { ...network('10.38.0.0/24'), name: 'net38', bridge: 'br38', macspoofchk: true }
        const [one, two] = [await added(checked), await added(checked)]
        const reaches = async () => (await one.pod.ping('10.38.0.1')).received === 1
        assert.equal((await one.pod.ping(two.address)).received, 1)
        const [before] = (await one.pod.ip('link', 'show', 'eth0')) as readonly Json[]
        const pretend = (mac: unknown) => one.pod.sh(`ip link set eth0 address ${mac}; ip neigh flush all`)
        await pretend('02:00:00:00:00:99')
        assert.equal(await reaches(), false)
        await at.cluster.daemon(1).restart('SIGKILL')
        assert.equal(await reaches(), false)
        await pretend(before?.address)
        await until(reaches, { what: 'the pod to be itself again' })
        await at.ok('CHECK', type, { ...one.call, config: { ...one.call.config, prevResult: one.result } })
        for (const each of [one, two]) await each.del()
        assert.doesNotMatch(await at.ruleset(), /elements = .*veth/)
        await at.host.exec('ip', ['link', 'del', 'br38'])
      })

      test('portIsolation keeps ports apart that have it, and disableContainerInterface leaves the interface down', async () => {
        const isolated = { ...network('10.39.0.0/24'), name: 'net39', bridge: 'br39', portIsolation: true }
        const [one, two, open] = [
          await added(isolated),
          await added(isolated),
          await added({ ...isolated, portIsolation: false })
        ]
        const isApart = async () => {
          assert.equal((await one.pod.ping(two.address)).received, 0)
          assert.equal((await one.pod.ping(open.address)).received, 1)
        }
        await isApart()
        await at.cluster.daemon(1).restart('SIGKILL')
        const port = String(interfacesOf(one.result)[1]?.name)
        await at.host.exec('ip', ['link', 'set', port, 'type', 'bridge_slave', 'isolated', 'off'])
        await until(async () => (await one.pod.ping(two.address)).received === 0, {
          what: 'the port to be isolated again'
        })
        await isApart()
        await at.ok('CHECK', type, { ...one.call, config: { ...one.call.config, prevResult: one.result } })
        for (const each of [one, two, open]) await each.del()
        const pod = await at.pod()
        const down = { config: { bridge: 'br39', name: 'net39', disableContainerInterface: true }, pod }
        await at.ok('ADD', type, down)
        assert.match((await pod.exec('ip', ['link', 'show', 'eth0'])).stdout, /state DOWN/)
        await at.ok('DEL', type, down)
        await at.host.exec('ip', ['link', 'del', 'br39'])
      })
    }
  })
}
