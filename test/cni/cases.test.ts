// Cases of the CNI reference that the plugins' own tests show in part or not at all, each whole: letter case, output,
// sources seen, DNS, repairs, GC, STATUS, IPv6.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import type { Place } from '../lab/lab-scene.ts'
import type { Pod } from '../lab/pod.ts'
import { until } from '../lab/run.ts'
import { type Asked, addressesOf, CniHost, skip } from './cni-host.ts'

const script = (name: string) => fileURLToPath(new URL(`../lab/${name}`, import.meta.url))
const sets = (subnets: readonly string[]) => subnets.map((subnet) => [{ subnet }])

const bridgeWith = (...subnets: readonly string[]): Json => ({
  ...{ isDefaultGateway: true, ipMasq: true },
  ipam: { type: 'host-local', ranges: sets(subnets) }
})
/** The plugins under test, each as its configuration spells gateway, masquerade and pools. */
const subjects: readonly { readonly type: string; readonly network: (...subnets: readonly string[]) => Json }[] = [
  { type: 'weft', network: (...subnets) => ({ mode: 'bridge', ipMasq: true, ipam: { ranges: sets(subnets) } }) },
  { type: 'bridge', network: bridgeWith }
]

/** Waits for a listening server in a place, which says whom it sees. */
async function serve(place: Place, ...words: readonly string[]): Promise<void> {
  const program = place.spawn(process.execPath, [script('echo-server.ts'), ...words])
  await until(() => program.text().includes('listening'), { what: 'the server', deadlineMs: 60_000 })
}

async function ask(place: Place, protocol: 'tcp' | 'udp', address: string, port: number): Promise<string> {
  const args = [script('echo-client.ts'), protocol, address, String(port)]
  return (await place.exec(process.execPath, args, { check: false })).stdout.trim()
}

const LISTENER = `const [group, port] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4', (_, { address }) => console.log('heard ' + address))
socket.bind(Number(port), () => { socket.addMembership(group); console.log('listening') })`
const SPEAKER = `const [group, port] = process.argv.slice(1)
const socket = require('node:dgram').createSocket('udp4')
socket.send('?', Number(port), group, () => socket.close())`

for (const { type, network } of subjects) {
  describe(`${type}: whole cases`, { skip, timeout: 600_000 }, () => {
    let at: CniHost
    let networks = 0
    before(
      async () => {
        at = await CniHost.start()
      },
      { timeout: 120_000 }
    )
    after(() => at?.[Symbol.asyncDispose](), { timeout: 120_000 })

    /** A network, bridge and pool of its own for each case: what one leaves in them is no matter of the next. */
    function own(...subnets: readonly string[]): Json {
      const n = networks++
      return { name: `whole${n}`, bridge: `whole${n}`, ...network(...subnets) }
    }
    async function added(config: Json, more: Asked = {}) {
      const pod = more.pod ?? (await at.pod())
      const call = { ...more, config, pod }
      const result = await at.ok('ADD', type, call)
      const [address = ''] = addressesOf(result).map((each) => each.split('/')[0] ?? '')
      return { pod, call, result, address, del: () => at.ok('DEL', type, call) }
    }
    const veths = async () => (await at.links()).filter((name) => name.startsWith('veth'))
    const tentative = async (place: Place) => (await place.sh('ip -6 -o addr show tentative')).stdout
    const defaultRoutes = async (pod: Pod) =>
      (await pod.sh('ip -4 route show default; ip -6 route show default')).stdout

    test('case 24: whatever fails prints one JSON object and nothing else, and what else is said stands on standard error', async () => {
      const config = own('10.60.0.0/24')
      const pod = await at.pod()
      await at.host.sh(
        `mkdir -p /run/loud; printf '#!/bin/sh\\necho many words >&2\\necho "{\\"code\\":123,\\"msg\\":\\"no\\"}"\\nexit 7\\n' > /run/loud/loud; chmod 755 /run/loud/loud`
      )
      const failing: readonly (readonly [string, Asked])[] = [
        ['ADD', { config }],
        ['FOO', { config, pod }],
        ['ADD', { config, pod, id: '-a' }],
        ['ADD', { config, pod, ifname: 'a/b' }],
        ['ADD', { config, pod, args: 'IP' }],
        ['ADD', { config: '{', pod }],
        ['ADD', { config: { ...config, name: 'a/b' }, pod }],
        ['ADD', { config: { ...config, cniVersion: '9.9.9' }, pod }],
        ['ADD', { config: { ...config, ipam: { ...(config.ipam as Json), ranges: [[{ subnet: 'x' }]] } }, pod }],
        ['ADD', { config, pod, netns: '/run/netns/none' }],
        ['CHECK', { config, pod }],
        ['STATUS', { config: { ...config, cniVersion: '1.0.0' } }],
        ['GC', { config: { ...config, 'cni.dev/valid-attachments': 5 } }],
        ['ADD', { config, pod, env: { WEFTD_SOCKET: '/run/none.sock' } }],
        ['ADD', { config: { ...config, ipam: { type: 'loud' } }, pod, path: [BIN, '/run/loud'] }]
      ]
      for (const [verb, asked] of failing) {
        const { exit, stdout, stderr, json } = await at.call(verb, type, asked)
        const what = `${verb} ${JSON.stringify(asked.config)}: ${stdout}${stderr}`
        assert.equal(exit, 1, what)
        assert.ok(stdout.endsWith('}\n') && stdout.trim().split('\n').length === 1, what)
        assert.deepEqual(
          Object.keys(json).filter((key) => !/^(cniVersion|code|msg|details)$/.test(key)),
          [],
          what
        )
        assert.ok(typeof json.code === 'number' && json.msg, what)
        // weft gives addresses itself and says so; bridge runs the third party, whose words stay where they were said.
        if (asked.path !== undefined && type === 'bridge') assert.deepEqual([json.code, stderr], [123, 'many words\n'])
        else assert.equal(stderr, '', what)
      }
      assert.deepEqual(await at.reserved(String(config.name)), [])
    })

    test('case 35: beyond the host a pod is seen as the host, by other pods and by multicast as itself', async () => {
      const config = own('10.61.0.0/24')
      const [one, two] = [await added(config), await added(config)]
      // The router knows no way back to 10.61.0.0/24.
      const outside = at.cluster.lab.router
      const [way] = (await outside.ip('-4', 'route', 'get', at.host.address)) as readonly Json[]
      await serve(outside, 'outside', '7001')
      await serve(two.pod, 'two', '7001')
      await until(
        async () => (await ask(one.pod, 'tcp', String(way?.prefsrc), 7001)) === `outside sees ${at.host.address}`,
        { what: 'the router to see the host', deadlineMs: 15_000 }
      )
      for (const protocol of ['tcp', 'udp'] as const)
        assert.equal(await ask(one.pod, protocol, two.address, 7001), `two sees ${one.address}`)
      // Packets from pod to pod pass the host's postrouting too where the bridge hands them to the firewall.
      await at.host.sh('echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables', { check: false })
      const heard = two.pod.spawn(process.execPath, ['-e', LISTENER, '224.7.7.7', '7002'], { name: 'listener' })
      await until(() => heard.text().includes('listening'), { what: 'the listener', deadlineMs: 60_000 })
      await until(
        async () => {
          await one.pod.exec(process.execPath, ['-e', SPEAKER, '224.7.7.7', '7002'])
          return /heard (\S+)/.exec(heard.text())?.[1]
        },
        { what: 'the multicast', deadlineMs: 30_000 }
      )
      assert.match(heard.text(), new RegExp(`heard ${RegExp.escape(one.address)}\n`))
      for (const each of [one, two]) await each.del()
    })

    test('case 36: DNS is that of the configuration, and without any that of the IPAM plugin', async () => {
      await at.host.sh("printf 'nameserver 10.0.0.99\\nsearch ipam.example\\n' > /run/resolv.ipam")
      const plain = own('10.62.0.0/24')
      const config = { ...plain, ipam: { ...(plain.ipam as Json), resolvConf: '/run/resolv.ipam' } }
      const dns = { nameservers: ['10.0.0.53'], search: ['a.example'] }
      const [given, fromIpam] = [await added({ ...config, dns }), await added(config)]
      assert.deepEqual(given.result.dns, dns)
      if (type === 'bridge')
        assert.deepEqual(fromIpam.result.dns, { nameservers: ['10.0.0.99'], search: ['ipam.example'] })
      for (const each of [given, fromIpam]) await each.del()
    })

    test('case 69: what is broken on the host is named or repaired, and then CHECK agrees', async () => {
      const config = own('10.63.0.0/24')
      const { call, result, del } = await added(config)
      const checked = { ...call, config: { ...config, prevResult: result } }
      const end = (result.interfaces as readonly Json[]).find(
        ({ name, sandbox }) => sandbox === undefined && name !== config.bridge
      )
      const name = String(end?.name)
      for (const harm of [`ip link set ${name} down`, `ip link set ${name} nomaster`]) {
        await at.host.sh(harm)
        const { exit, json } = await at.call('CHECK', type, checked)
        if (exit !== 0) assert.match(`${json.msg} ${json.details}`, new RegExp(name))
        await until(async () => (await at.call('CHECK', type, checked)).exit === 0, {
          what: `the end of "${harm}"`,
          deadlineMs: 30_000
        })
        const { stdout } = await at.host.sh(`ip -o link show ${name}`)
        assert.match(stdout, new RegExp(`[<,]UP[,>].* master ${config.bridge} `))
      }
      await del()
    })

    test('case 71: null, an empty list and none at all mean that nothing is valid; rules and ports of the dead go, networks beside stay', async () => {
      const [config, beside] = [own('10.64.0.0/24'), own('10.65.0.0/24')]
      const kept = await added(beside)
      const before = await veths()
      for (const listed of [{ 'cni.dev/valid-attachments': null }, { 'CNI.dev/Attachments': [] }, {}]) {
        for (let n = 0; n < 2; n++) await added(config)
        const foreign = { containerID: kept.pod.name, ifname: 'eth0' }
        await at.ok('GC', type, { config: { ...beside, 'cni.dev/valid-attachments': [foreign] } })
        assert.equal((await at.reserved(String(config.name))).length, 2)
        await at.ok('GC', type, { config: { ...config, ...listed } })
        assert.deepEqual(await at.reserved(String(config.name)), [])
        assert.deepEqual(await veths(), before)
        await until(async () => !(await at.ruleset()).includes('10.64.0.'), {
          what: 'rules of the dead to go',
          deadlineMs: 15_000
        })
        assert.equal((await kept.pod.ping('10.65.0.1')).received, 1)
      }
      await kept.del()
    })

    test('case 73: STATUS is silent when ready, 50 when the pool is full, names what is missing, and changes nothing', async () => {
      const config = own('10.66.0.0/30')
      const status = (over: Json = {}) => ({ config: { ...config, ...over } })
      const state = async () => [await at.links(), await at.reserved(String(config.name)), await at.settledRuleset()]
      const before = await state()
      await at.ok('STATUS', type, status())
      assert.deepEqual(await state(), before)
      const one = await added(config)
      const full = await state()
      await at.fails('STATUS', type, status(), /10\.66\.0\.1-10\.66\.0\.2/, 50)
      assert.deepEqual(await state(), full)
      await one.del()
      await at.ok('STATUS', type, status())
      const missing = { ipam: { type: 'nowhere' } }
      if (type === 'bridge') await at.fails('STATUS', type, status(missing), /failed to find plugin "nowhere"/)
      else await at.fails('STATUS', type, status(missing), /ipam\.type.*nowhere/, 2)
    })

    test('case 74: both families at once: gateways on the bridge, forwarding for both, nothing tentative in the pod or on the bridge', async () => {
      await at.host.sh('echo 0 > /proc/sys/net/ipv6/conf/all/forwarding')
      const config = own('10.67.0.0/24', 'fd00:67::/64')
      const one = await added(config)
      assert.deepEqual([await tentative(one.pod), await tentative(at.host)], ['', ''])
      assert.equal((await one.pod.ping('fd00:67::1')).received, 1)
      assert.equal((await one.pod.ping('10.67.0.1')).received, 1)
      assert.deepEqual(
        addressesOf(one.result).map((each) => each.replace(/[^.:]*\//, '…/')),
        ['10.67.0.…/24', 'fd00:67::…/64']
      )
      assert.match(await defaultRoutes(one.pod), /default via 10\.67\.0\.1[\s\S]*default via fd00:67::1/)
      const bridge = (await at.host.sh(`ip -o addr show dev ${config.bridge}`)).stdout
      assert.match(bridge, /inet 10\.67\.0\.1\/24[\s\S]*inet6 fd00:67::1\/64/)
      const { stdout } = await at.host.sh('cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding')
      assert.deepEqual(stdout.trim().split('\n'), ['1', '1'])
      await one.del()
    })

    test('case 75: IPv6 that is off in the pod is put on for its address, and left alone where there is none', async () => {
      const off = 'for name in default all; do echo 1 > /proc/sys/net/ipv6/conf/$name/disable_ipv6; done'
      const setting = async (pod: Pod) => (await pod.sh('cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6')).stdout.trim()
      for (const [subnets, expected] of [
        [['10.68.0.0/24'], '1'],
        [['10.69.0.0/24', 'fd00:69::/64'], '0']
      ] as const) {
        const pod = await at.pod()
        await pod.sh(off)
        const one = await added(own(...subnets), { pod })
        assert.equal(await setting(pod), expected, subnets.join())
        if (expected === '0') assert.equal((await pod.ping('fd00:69::1')).received, 1)
        await one.del()
      }
    })

    test('case 76: a pool of IPv6 alone works, told as ip6 in 0.2.0, and pods reach each other', async () => {
      const config = own('fd00:70::/64')
      const [old, new_] = [await added({ ...config, cniVersion: '0.2.0' }), await added(config)]
      const { ip6, ip4, ips } = old.result as { readonly [key: string]: Json | undefined }
      assert.match(String(ip6?.ip), /^fd00:70::[0-9a-f]+\/64$/)
      assert.deepEqual([ip6?.gateway, ip4, ips], ['fd00:70::1', undefined, undefined])
      assert.match(new_.address, /^fd00:70::/)
      const first = String(ip6?.ip).split('/')[0] ?? ''
      assert.equal((await new_.pod.ping(first)).received, 1)
      assert.equal((await old.pod.ping(new_.address)).received, 1)
      for (const each of [old, new_]) await each.del()
      assert.deepEqual(await at.reserved(String(config.name)), [])
    })
  })
}

describe('chained plugins: whole cases', { skip, timeout: 300_000 }, () => {
  test('case 7: portmap, bandwidth, tuning and firewall with nothing to do hand on whatever stands in prevResult', async () => {
    await using at = await CniHost.start()
    const pod = await at.pod()
    await pod.sh('ip link add eth0 type veth peer name other; ip link set eth0 up')
    const inside = { name: 'eth0', mac: '02:00:00:00:00:02', mtu: 1400, sandbox: pod.netns }
    const prevResult = {
      cniVersion: '1.1.0',
      interfaces: [
        { name: 'br1', mac: '02:00:00:00:00:01', mtu: 1500 },
        { ...inside, socketPath: '/s', pciID: '0000:00:1f.6' }
      ],
      ips: [{ interface: 1, address: '10.10.0.2/24', gateway: '10.10.0.1' }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.10.0.1', priority: 7, table: 99, scope: 0, mtu: 1300, advmss: 1200 }],
      dns: { nameservers: ['10.0.0.53'] }
    }
    for (const type of ['portmap', 'bandwidth', 'tuning', 'firewall']) {
      assert.deepEqual(await at.ok('ADD', type, { config: { prevResult }, pod }), prevResult, type)
      await at.ok('DEL', type, { config: { prevResult }, pod })
    }
  })

  test('case 9: portmap behind bridge takes RuntimeConfig.PortMappings and PrevResult in any letters', async () => {
    await using at = await CniHost.start()
    const pod = await at.pod()
    const config = { name: 'letters', bridge: 'letters', ...bridgeWith('10.72.0.0/24') }
    const PREVRESULT = await at.ok('ADD', 'bridge', { config, pod })
    const asked = {
      name: 'letters',
      PREVRESULT,
      RuntimeConfig: { PortMappings: [{ HostPort: 8091, ContainerPort: 80, Protocol: 'TCP', HostIP: '' }] }
    }
    await at.ok('ADD', 'portmap', { config: asked, pod })
    await serve(pod, 'server', '80')
    assert.match(await ask(at.cluster.lab.router, 'tcp', at.host.address, 8091), /^server sees/)
    await at.ok('DEL', 'portmap', { config: asked, pod })
    assert.doesNotMatch(await ask(at.cluster.lab.router, 'tcp', at.host.address, 8091), /sees/)
    await at.ok('DEL', 'bridge', { config, pod })
  })

  test('case 9: RuntimeConfig.PortMappings with HostPort, ContainerPort, Protocol and an empty HostIP works', async () => {
    await using at = await CniHost.start()
    const pod = await at.pod()
    const call = {
      pod,
      config: {
        RuntimeConfig: { PortMappings: [{ HostPort: 8090, ContainerPort: 80, Protocol: 'TCP', HostIP: '' }] },
        IPAM: { RANGES: [[{ Subnet: '10.71.0.0/24', RangeStart: '10.71.0.9' }]] }
      }
    }
    assert.deepEqual(addressesOf(await at.ok('ADD', 'weft', call)), ['10.71.0.9/24'])
    await serve(pod, 'server', '80')
    assert.match(await ask(at.cluster.lab.router, 'tcp', at.host.address, 8090), /^server sees/)
    await at.ok('DEL', 'weft', call)
    assert.doesNotMatch(await ask(at.cluster.lab.router, 'tcp', at.host.address, 8090), /sees/)
  })
})
