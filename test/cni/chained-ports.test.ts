// portmap, bandwidth and firewall behind another project's bridge, of which weftd knows nothing but prevResult: cases
// 52 to 65, restarts, GC and crashes.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BIN, linesOf } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import { debianPlugins } from '../lab/cnitool.ts'
import type { Place } from '../lab/lab-scene.ts'
import type { Pod } from '../lab/pod.ts'
import { until } from '../lab/run.ts'
import { CniHost, skip as needs } from './cni-host.ts'

const skip = needs || (existsSync(`${debianPlugins}/bridge`) ? false : `${debianPlugins}/bridge is missing`)
const script = (name: string) => fileURLToPath(new URL(`../lab/${name}`, import.meta.url))

const cniVersion = '1.0.0'
const RATE = 8_000_000
const bandwidth = { ingressRate: RATE, ingressBurst: 800_000, egressRate: RATE, egressBurst: 800_000 }
const mapping = (hostPort: number, protocol = 'tcp') => ({ hostPort, containerPort: 80, protocol })

describe("portmap, bandwidth and firewall behind another project's bridge", { skip, timeout: 600_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
  })
  after(() => at[Symbol.asyncDispose]())

  const main: Json = {
    ...{ cniVersion, bridge: 'theirs', isGateway: true, isDefaultGateway: true },
    ipam: { type: 'host-local', subnet: '10.60.0.0/24' }
  }
  const path = [debianPlugins]

  /** A pod that their bridge has connected, and calls of ours with its result. */
  async function connected() {
    const pod = await at.pod()
    // Their release prints an empty `dns`, which newer ones leave out.
    const { dns: _, ...prevResult } = await at.ok('ADD', 'bridge', { config: main, pod, path })
    const asked = (more: Json = {}) => ({ config: { cniVersion, prevResult, ...more }, pod })
    return { pod, prevResult, asked, del: () => at.ok('DEL', 'bridge', { config: main, pod, path }) }
  }
  const ports = (...portMappings: readonly Json[]) => ({ runtimeConfig: { portMappings } })

  async function serve(pod: Pod): Promise<void> {
    const program = pod.spawn(process.execPath, [script('echo-server.ts'), 'server', '80'])
    await until(() => program.text().includes('listening'), { what: 'the server in the pod' })
  }
  async function ask(place: Place, port: number, protocol = 'tcp', address = at.host.address): Promise<string> {
    const args = [script('echo-client.ts'), protocol, address, String(port), '0']
    return (await place.exec(process.execPath, args, { check: false })).stdout.trim()
  }
  const outside = () => at.cluster.lab.router

  /** What is there of ports and limits: elements, limiting devices, disciplines that somebody chose. */
  async function traces(): Promise<readonly string[]> {
    const elements = /"ports-|: 10\.60\.0\.|elements = \{ 10\.60/
    return [
      ...(await at.ruleset()).split('\n').filter((line) => elements.test(line)),
      ...(await linesOf(at.host, 'ip', '-o', 'link', 'show', 'type', 'ifb'))
    ].map((line) => line.trim())
  }
  const disciplines = async () =>
    (await linesOf(at.host, 'tc', 'qdisc', 'show')).filter((line) => /^qdisc (tbf|ingress)/.test(line))
  const unrepaired = async () =>
    JSON.parse(
      (
        await at.host.exec(
          process.execPath,
          [fileURLToPath(new URL('../../daemon/ctl/main.ts', import.meta.url)), 'diff', '--json'],
          { check: false }
        )
      ).stdout || '{}'
    )

  test('cases 59 and 60: a port leads to the pod over tcp and udp, CHECK agrees, a restarted weftd goes on, DEL needs nothing', async () => {
    const { pod, prevResult, asked, del } = await connected()
    await serve(pod)
    const call = asked(ports(mapping(8080), mapping(8080, 'udp')))
    assert.deepEqual(await at.ok('ADD', 'portmap', call), prevResult)
    const isServed = async () => {
      for (const protocol of ['tcp', 'udp']) {
        assert.equal(await ask(outside(), 8080, protocol), 'server sees 192.168.10.1')
        for (const address of [at.host.address, '127.0.0.1'])
          assert.match(await ask(at.host, 8080, protocol, address), /^server sees/, `${protocol} ${address}`)
      }
    }
    await isServed()
    await at.ok('CHECK', 'portmap', call)
    await at.fails('CHECK', 'portmap', asked(ports(mapping(8081))), /8081/, 106)
    const before = await traces()
    await at.cluster.daemon(1).restart('SIGKILL')
    await isServed()
    assert.deepEqual(await traces(), before)
    await at.host.sh('nft flush map inet weft host_ports_4')
    await until(async () => (await ask(outside(), 8080)) === 'server sees 192.168.10.1', {
      what: 'the port to come back'
    })
    for (let times = 0; times < 2; times++)
      await at.ok('DEL', 'portmap', { config: { cniVersion }, id: pod.name, netns: '' })
    assert.deepEqual(await traces(), [])
    assert.notEqual(await ask(outside(), 8080), 'server sees 192.168.10.1')
    await del()
  })

  test('masqAll shows this host to the pod, and snat false keeps out what would need it', async () => {
    const { pod, asked, del } = await connected()
    await serve(pod)
    const all = asked({ ...ports(mapping(8082)), masqAll: true })
    await at.ok('ADD', 'portmap', all)
    assert.equal(await ask(outside(), 8082), 'server sees 10.60.0.1')
    await at.cluster.daemon(1).restart('SIGKILL')
    assert.equal(await ask(outside(), 8082), 'server sees 10.60.0.1')
    await at.ok('CHECK', 'portmap', all)
    await at.ok('DEL', 'portmap', all)
    await at.ok('ADD', 'portmap', asked({ ...ports(mapping(8083)), snat: false }))
    assert.equal(await ask(outside(), 8083), 'server sees 192.168.10.1')
    await at.ok('DEL', 'portmap', all)
    assert.deepEqual(await traces(), [])
    await del()
  })

  test('under conditions a port leads to the pod for those packets only, also after a restart of weftd', async () => {
    const [one, two] = [await connected(), await connected()]
    await serve(one.pod)
    const { stdout: router } = await outside().sh('ip -4 -o addr show to 192.168.10.0/24')
    const theirs = /inet ([0-9.]+)/.exec(router)?.[1] ?? assert.fail(router)
    const ways = [
      // Everybody but the host outside.
      { conditionsV4: ['!', '-s', `${theirs}/32`], isForOutside: false, isForHost: true },
      { conditionsV4: ['ip', 'saddr', `${theirs}`, 'iifname', 'eth*'], isForOutside: true, isForHost: false },
      { conditionsV4: ['-s', `${theirs},192.0.2.0/24`, '-i', 'eth0'], isForOutside: true, isForHost: false },
      { conditionsV4: ['!', '-d', '192.0.2.0/24'], isForOutside: true, isForHost: true }
    ]
    for (const { isForOutside, isForHost, conditionsV4 } of ways) {
      const call = one.asked({ ...ports(mapping(8085), mapping(8085, 'udp')), conditionsV4 })
      await at.ok('ADD', 'portmap', call)
      const isAsConfigured = async () => {
        for (const protocol of ['tcp', 'udp']) {
          assert.equal(/^server sees/.test(await ask(outside(), 8085, protocol)), isForOutside, `${conditionsV4}`)
          assert.equal(/^server sees/.test(await ask(at.host, 8085, protocol)), isForHost, `${conditionsV4}`)
        }
      }
      await isAsConfigured()
      await at.ok('CHECK', 'portmap', call)
      const before = await traces()
      await at.cluster.daemon(1).restart('SIGKILL')
      assert.deepEqual(await traces(), before)
      await isAsConfigured()
      assert.deepEqual((await unrepaired()).changes, [])
      await at.fails('ADD', 'portmap', two.asked(ports(mapping(8085))), /8085.tcp is taken/, 108)
      for (const each of [one, two])
        await at.ok('DEL', 'portmap', { config: { cniVersion }, id: each.pod.name, netns: '' })
      assert.deepEqual(await traces(), [])
    }
    const most = Array.from({ length: 4 }, (_, n) => ['!', '-s', `fd00:ffff:ffff:ffff:ffff:ffff:ffff:fff${n}`]).flat()
    const longest = one.asked({ ...ports(mapping(8086)), conditionsV6: most })
    await at.ok('ADD', 'portmap', longest)
    await at.ok('CHECK', 'portmap', longest)
    await at.ok('DEL', 'portmap', longest)
    await at.fails('ADD', 'portmap', one.asked({ ...ports(mapping(8087)), conditionsV4: ['-p', 'tcp'] }), /"-p"/, 7)
    assert.deepEqual(await traces(), [])
    for (const each of [one, two]) await each.del()
  })

  test('cases 55 to 58: forty ports at once; none; wrong ones are named and change nothing; a taken one names its holder', async () => {
    const [one, two] = [await connected(), await connected()]
    await serve(one.pod)
    const empty = await at.settledRuleset()
    assert.deepEqual(await at.ok('ADD', 'portmap', one.asked()), one.prevResult)
    for (const [wrong, words] of [
      [{ ...mapping(0) }, /hostPort: 0/],
      [{ ...mapping(-1) }, /hostPort: -1/],
      [{ ...mapping(65_536) }, /65536/],
      [{ ...mapping(80), hostPort: '80' }, /"80"/],
      [mapping(80, 'icmp'), /"icmp"/]
    ] as const)
      await at.fails('ADD', 'portmap', one.asked(ports(mapping(8090), wrong)), words, 7)
    await at.fails('ADD', 'portmap', { config: { cniVersion, ...ports(mapping(80)) }, pod: one.pod }, /chained/, 7)
    const nobody = { config: { cniVersion, ...ports(mapping(80)), prevResult: { cniVersion } }, pod: one.pod }
    await at.fails('ADD', 'portmap', nobody, /no address of eth0/, 109)
    assert.equal(await at.settledRuleset(), empty)
    const forty = Array.from({ length: 20 }, (_, n) => [mapping(9000 + n), mapping(9000 + n, 'udp')]).flat()
    await at.ok('ADD', 'portmap', one.asked(ports(...forty)))
    assert.equal(await ask(outside(), 9019), 'server sees 192.168.10.1')
    await at.fails(
      'ADD',
      'portmap',
      two.asked(ports(mapping(8090), mapping(9001))),
      new RegExp(one.pod.name.slice(0, 12)),
      108
    )
    await at.ok('DEL', 'portmap', one.asked())
    const left = await traces()
    assert.deepEqual(left, [])
    await at.ok('ADD', 'portmap', two.asked(ports(mapping(9001))))
    await at.ok('DEL', 'portmap', two.asked())
    for (const each of [one, two]) await each.del()
  })

  test('cases 64 and 65: both directions are limited at their pair, static keys win, and the limits outlive weftd', async () => {
    const { pod, prevResult, asked, del } = await connected()
    const call = asked({ ...bandwidth, runtimeConfig: { bandwidth: { ingressRate: 1000, ingressBurst: 1000 } } })
    const result = await at.ok('ADD', 'bandwidth', call)
    const [host] = (prevResult.interfaces as readonly Json[]).filter(({ name }) => /^veth/.test(String(name)))
    const ifb = (result.interfaces as readonly Json[]).at(-1)
    const shown = await disciplines()
    for (const device of [host?.name, ifb?.name])
      assert.ok(
        shown.some((line) => line.includes(`dev ${device} root`) && line.includes('rate 8Mbit')),
        shown.join('\n')
      )
    const checked = { ...call, config: { ...call.config, prevResult: result } }
    await at.ok('CHECK', 'bandwidth', checked)
    await at.cluster.daemon(1).restart('SIGKILL')
    await at.ok('CHECK', 'bandwidth', checked)
    assert.deepEqual(await disciplines(), shown)
    await at.host.exec('ip', ['link', 'del', String(ifb?.name)])
    await until(async () => (await disciplines()).length === shown.length, { what: 'the limit to come back' })
    for (let times = 0; times < 2; times++)
      await at.ok('DEL', 'bandwidth', { config: { cniVersion }, id: pod.name, netns: '' })
    assert.deepEqual(await traces(), [])
    await del()
    const one = await connected()
    await at.ok('ADD', 'bandwidth', one.asked({ ingressRate: RATE, ingressBurst: 800_000 }))
    assert.deepEqual([(await traces()).length, (await disciplines()).length], [0, 1])
    await one.del()
    const nowhere = { config: { cniVersion, ...bandwidth, prevResult: { cniVersion } }, pod: one.pod }
    await at.fails('ADD', 'bandwidth', nowhere, /veth pair/, 107)
  })

  test("a limit is on the peer of the container's interface, whatever links the result names, and DEL cuts nobody off", async () => {
    const [one, other] = [await connected(), await connected()]
    const hostOf = ({ prevResult }: typeof one) =>
      (prevResult.interfaces as readonly Json[]).filter(({ name }) => /^veth/.test(String(name)))
    const named = { ...one.prevResult, interfaces: [...hostOf(other), ...(one.prevResult.interfaces as Json[])] }
    const call = one.asked({ ...bandwidth, prevResult: named })
    const result = await at.ok('ADD', 'bandwidth', call)
    const limited = async () => (await disciplines()).map((line) => /dev (\S+)/.exec(line)?.[1])
    const [mine, theirs] = [hostOf(one)[0]?.name, hostOf(other)[0]?.name]
    assert.ok((await limited()).includes(String(mine)) && !(await limited()).includes(String(theirs)))
    await at.ok('CHECK', 'bandwidth', { ...call, config: { ...call.config, prevResult: result } })
    await at.ok('DEL', 'bandwidth', call)
    assert.doesNotMatch((await linesOf(at.host, 'tc', 'qdisc', 'show')).join(), /ingress/)
    assert.equal((await one.pod.ping('10.60.0.1')).received, 1)
    // A pair of which the host has no end.
    await one.pod.exec('ip', ['link', 'add', 'eth5', 'type', 'veth', 'peer', 'name', 'eth6'])
    await at.fails('ADD', 'bandwidth', { ...call, ifname: 'eth5' }, /eth5 in .*veth pair/, 107)
    for (const each of [one, other]) await each.del()
  })

  test('subnets that are shaped, or are not, divide what is limited, and the division outlives weftd', async () => {
    const { pod, prevResult, asked, del } = await connected()
    const [host] = (prevResult.interfaces as readonly Json[]).filter(({ name }) => /^veth/.test(String(name)))
    const held = async (device: unknown) => {
      const { stdout } = await at.host.exec('tc', ['-s', 'class', 'show', 'dev', String(device)])
      return Number(/Sent \d+ bytes (\d+) pkt/.exec(stdout)?.[1] ?? assert.fail(stdout))
    }
    const parts = async (device: unknown) => {
      const { stdout } = await at.host.sh(
        `tc qdisc show dev ${device}; tc class show dev ${device}; tc filter show dev ${device}`
      )
      return stdout.replaceAll(/direct_packets_stat \d+/g, '')
    }
    const ping = (place: Place, to: string) => place.exec('ping', ['-c', '3', '-i', '0.2', '-W', '10', to])
    await outside().exec('ip', ['route', 'replace', '10.60.0.0/24', 'via', at.host.address])
    for (const [keys, isOutsideLimited] of [
      [{ shapedSubnets: ['192.168.10.0/24', 'fd00::/8'] }, true],
      [{ unshapedSubnets: ['192.168.10.0/24'] }, false]
    ] as const) {
      const call = asked({ ...keys, runtimeConfig: { bandwidth } })
      const result = await at.ok('ADD', 'bandwidth', call)
      const ifb = (result.interfaces as readonly Json[]).at(-1)?.name
      const checked = { ...call, config: { ...call.config, prevResult: result } }
      await at.ok('CHECK', 'bandwidth', checked)
      const isDivided = async () => {
        for (const device of [host?.name, ifb]) {
          const before = await held(device)
          await ping(pod, '192.168.10.1')
          const outside = (await held(device)) - before
          await ping(pod, '10.60.0.1')
          const inside = (await held(device)) - before - outside
          const [limited, free] = isOutsideLimited ? [outside, inside] : [inside, outside]
          // ARP is of no subnet.
          assert.ok(limited >= 3 && free < 3, `${device}: ${limited} held back, ${free} should have passed`)
        }
      }
      await isDivided()
      const shown = await parts(ifb)
      await at.cluster.daemon(1).restart('SIGKILL')
      await at.ok('CHECK', 'bandwidth', checked)
      assert.equal(await parts(ifb), shown)
      assert.deepEqual((await unrepaired()).changes, [])
      await at.host.exec('tc', ['qdisc', 'del', 'dev', String(ifb), 'root'])
      await at.host.exec('tc', ['qdisc', 'replace', 'dev', String(host?.name), 'root', 'bfifo'])
      await until(async () => /htb/.test(await parts(host?.name)) && (await parts(ifb)) === shown, {
        what: 'the divisions to come back'
      })
      await isDivided()
      await at.ok('DEL', 'bandwidth', { config: { cniVersion }, id: pod.name, netns: '' })
      await at.host.exec('tc', ['qdisc', 'del', 'dev', String(host?.name), 'root'])
    }
    assert.deepEqual(await traces(), [])
    await del()
  })

  test('packets pass the firewalls of others, also after a restart, until DEL or GC', async () => {
    await outside().exec('ip', ['route', 'replace', '10.60.0.0/24', 'via', at.host.address])
    await at.host.sh(
      'nft add table ip strict; nft add chain ip strict f { type filter hook forward priority 10\\; policy drop\\; }'
    )
    const passes = async (pod: Pod) =>
      (await pod.exec('ping', ['-c', '1', '-W', '2', '192.168.10.1'], { check: false })).code === 0
    const accepts = async () => (await at.ruleset()).split('\n').filter((line) => line.includes('10.60.0.0/24')).length
    const [one, two] = [await connected(), await connected()]
    assert.equal(await passes(one.pod), false)
    for (const { asked } of [one, two]) await at.ok('ADD', 'firewall', asked())
    await until(() => passes(one.pod), { what: 'the packets to pass' })
    const before = await accepts()
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await at.cluster.daemon(1).restart(signal)
      assert.ok(await passes(one.pod), signal)
      for (const { asked } of [one, two]) await at.ok('CHECK', 'firewall', asked())
      assert.equal(await accepts(), before)
    }
    // Somebody who loads rules anew takes our accept along.
    await at.host.sh('nft flush chain ip strict f')
    await until(() => passes(two.pod), { what: 'the packets to pass again' })
    await at.ok('DEL', 'firewall', { config: { cniVersion: '1.0.0' }, id: one.pod.name, netns: '' })
    assert.ok(await passes(two.pod))
    await at.fails('CHECK', 'firewall', one.asked(), /forwarding of packets of .* is not as it was set up/, 106)
    await at.cluster.daemon(1).restart('SIGKILL')
    await at.ok('GC', 'firewall', {
      config: { 'cni.dev/valid-attachments': [{ containerID: two.pod.name, ifname: 'eth0' }] }
    })
    assert.ok(await passes(two.pod))
    await at.ok('GC', 'firewall', {})
    assert.equal(await accepts(), 0)
    assert.doesNotMatch(await at.ruleset(), /forward_4_|let_through/)
    await at.host.sh('nft delete table ip strict')
    for (const each of [one, two]) await each.del()
  })

  test('case 71: GC takes away what is not listed, of its own network only', async () => {
    const pods = [await connected(), await connected(), await connected()]
    const [first, second, third] = pods as [(typeof pods)[0], (typeof pods)[0], (typeof pods)[0]]
    for (const [n, { asked }] of pods.entries()) {
      const name = n === 2 ? 'beside' : 'net1'
      await at.ok('ADD', 'portmap', asked({ name, ...ports(mapping(8100 + n)) }))
      await at.ok('ADD', 'bandwidth', asked({ name, ...bandwidth }))
    }
    // What an earlier weftd has made is found, too.
    await at.cluster.daemon(1).restart('SIGKILL')
    const valid = { 'cni.dev/valid-attachments': [{ containerID: first.pod.name, ifname: 'eth0' }] }
    for (const type of ['portmap', 'bandwidth']) await at.ok('GC', type, { config: { cniVersion: '1.1.0', ...valid } })
    const left = (await traces()).join('\n')
    assert.match(left, /8100/)
    assert.doesNotMatch(left, /8101/)
    assert.match(left, /8102/)
    assert.equal((await linesOf(at.host, 'ip', '-o', 'link', 'show', 'type', 'ifb')).length, 2)
    for (const name of ['net1', 'beside'])
      for (const type of ['portmap', 'bandwidth'])
        await at.ok('GC', type, { config: { cniVersion: '1.1.0', name, 'cni.dev/attachments': null } })
    assert.deepEqual(await traces(), [])
    for (const each of [first, second, third]) await each.del()
  })

  test("a pod's namespace that goes behind everybody's back leaves no wish for its limits", async () => {
    const { pod, asked } = await connected()
    await at.ok('ADD', 'bandwidth', asked(bandwidth))
    await pod[Symbol.asyncDispose]()
    await until(async () => (await traces()).length === 0, { what: 'the limit to go' })
    assert.deepEqual((await unrepaired()).changes, [])
    await at.ok('DEL', 'bandwidth', { config: { cniVersion }, id: pod.name, netns: '' })
    await at.ok('DEL', 'bridge', { config: main, id: pod.name, netns: '', path })
  })

  test('case 79: weftd killed in the middle of a chain leaves nothing after DEL', async () => {
    for (const pause of [0, 2, 5, 10, 20]) {
      const { pod, asked, del } = await connected()
      const added = Promise.all([
        at.call('ADD', 'portmap', asked(ports(mapping(8110), mapping(8111, 'udp')))),
        at.call('ADD', 'bandwidth', asked(bandwidth))
      ])
      await new Promise((resolve) => setTimeout(resolve, pause))
      await at.cluster.daemon(1).restart('SIGKILL')
      await added
      for (const type of ['bandwidth', 'portmap'])
        await at.ok('DEL', type, { config: { cniVersion }, id: pod.name, netns: '', path: [BIN] })
      assert.deepEqual(await traces(), [], `after ${pause} ms`)
      await del()
      assert.deepEqual(await disciplines(), [])
    }
  })
})
