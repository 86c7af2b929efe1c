// The interface plugin: cases 25 to 39, 67 to 71, 73 to 76, 78 and 79 of the CNI reference, over Weft's own plugin and
// over bridge.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Json } from '../lab/cni.ts'
import type { Pod } from '../lab/pod.ts'
import { CniHost, skip } from './cni-host.ts'
import { callsOf, interfacesOf, subjects } from './subjects.ts'

for (const subject of subjects) {
  const { type, network } = subject
  describe(`${type}: interface`, { skip, timeout: 600_000 }, () => {
    let at: CniHost
    before(async () => {
      at = await CniHost.start()
    })
    after(() => at[Symbol.asyncDispose]())

    const { config, veths, isClean, added } = callsOf(subject, () => at)

    test('case 25: a pod has its address and default route, the host the bridge with the gateway, and they reach each other', async () => {
      const one = await added()
      const inside = (await one.pod.exec('sh', ['-c', 'ip -o addr show eth0; ip route'])).stdout
      assert.match(inside, new RegExp(`inet ${one.address}/24`))
      assert.match(inside, /default via 10\.10\.0\.1/)
      const host = (await at.host.sh('ip -o addr show br1; ip link show master br1; cat /proc/sys/net/ipv4/ip_forward'))
        .stdout
      assert.match(host, /10\.10\.0\.1\/24[\s\S]*veth[\s\S]*\n1/)
      assert.equal((await one.pod.ping('10.10.0.1')).received, 1)
      await one.del()
      await isClean()
    })

    test("case 26: two pods reach each other, and results tell the kernel's MAC addresses", async () => {
      const [one, two] = [await added(), await added()]
      assert.notEqual(one.address, two.address)
      assert.equal((await one.pod.ping(two.address)).received, 1)
      for (const { result, pod } of [one, two]) {
        for (const { name, mac, sandbox } of interfacesOf(result)) {
          const [link] = (await (sandbox === undefined ? at.host : pod).ip('link', 'show', String(name))) as Json[]
          assert.equal(mac, link?.address)
        }
      }
      for (const each of [one, two]) await each.del()
      await isClean()
    })

    test('case 27: the MTU holds at both ends, and for a bridge made by this call', async () => {
      const one = await added({ mtu: 1400, bridge: 'br27' })
      for (const { name, sandbox } of interfacesOf(one.result)) {
        const [link] = (await (sandbox === undefined ? at.host : one.pod).ip('link', 'show', String(name))) as Json[]
        assert.equal(link?.mtu, 1400, String(name))
      }
      await one.del()
      await at.host.exec('ip', ['link', 'del', 'br27'])
    })

    test('case 28: a second ADD fails and leaves the first as it was', async () => {
      const one = await added()
      const [links, files] = [await veths(), await at.reserved()]
      await at.fails('ADD', type, one.call, /already|there/)
      assert.deepEqual([await veths(), await at.reserved()], [links, files])
      assert.equal((await one.pod.ping('10.10.0.1')).received, 1)
      await one.del()
      await isClean()
    })

    test('case 29: a second interface has an address of its own, and the result lists it alone', async () => {
      const one = await added()
      const two = await added({}, { pod: one.pod, ifname: 'eth1' })
      assert.notEqual(one.address, two.address)
      assert.deepEqual(
        interfacesOf(two.result).flatMap(({ name, sandbox }) => (sandbox ? [name] : [])),
        ['eth1']
      )
      for (const { address } of [one, two]) assert.equal((await at.host.ping(address)).received, 1)
      await two.del()
      assert.match((await one.pod.exec('ip', ['-o', 'addr', 'show', 'eth0'])).stdout, new RegExp(one.address))
      await one.del()
      await isClean()
    })

    test('case 30: an interface that is there already is not touched, nor by the DEL that follows', async () => {
      const pod = await at.pod()
      await pod.sh('ip link add eth0 type veth peer name other; ip addr add 192.0.2.1/24 dev eth0')
      await at.fails('ADD', type, { config, pod }, /eth0/)
      await at.ok('DEL', type, { config, pod })
      assert.match((await pod.exec('ip', ['-o', 'addr', 'show', 'eth0'])).stdout, /192\.0\.2\.1/)
      await isClean()
    })

    test('case 31: routes have their own gateway, else that of the pool; one that cannot be reached undoes everything', async () => {
      const routed = (...routes: readonly Json[]) => ({ ipam: { ...(config.ipam as Json), routes } })
      const one = await added(routed({ dst: '10.98.0.0/16', gw: '10.10.0.9' }, { dst: '10.99.0.0/16' }))
      const routes = (await one.pod.exec('ip', ['route'])).stdout
      assert.match(routes, /10\.98\.0\.0\/16 via 10\.10\.0\.9/)
      assert.match(routes, /10\.99\.0\.0\/16 via 10\.10\.0\.1/)
      await one.del()
      const call = { config: { ...config, ...routed({ dst: '10.98.0.0/16', gw: '10.77.0.9' }) }, pod: await at.pod() }
      await at.fails('ADD', type, call, /10\.77\.0\.9/)
      await isClean()
    })

    test('case 32: the MAC that is asked for is given; a malformed one is named', async () => {
      const one = await added({}, { args: 'IgnoreUnknown=1;MAC=02:00:00:00:00:0a' })
      const [link] = (await one.pod.ip('link', 'show', 'eth0')) as Json[]
      assert.equal(link?.address, '02:00:00:00:00:0a')
      await one.del()
      await at.fails('ADD', type, { config, pod: await at.pod(), args: 'IgnoreUnknown=1;MAC=zz' }, /MAC=zz/)
      await isClean()
    })

    test('case 33: a bridge with another address is named; forceAddress replaces it', async () => {
      await at.host.sh('ip link add br33 type bridge; ip addr add 10.33.0.1/24 dev br33')
      const call = { config: { ...config, bridge: 'br33' }, pod: await at.pod() }
      await at.fails('ADD', type, call, /br33.*10\.33\.0\.1/)
      await isClean()
      if (type === 'bridge') {
        const one = await added({ ...network('10.34.0.0/24'), name: 'net33', bridge: 'br33', forceAddress: true })
        const addresses = (await at.host.exec('ip', ['-o', '-4', 'addr', 'show', 'br33'])).stdout
        assert.doesNotMatch(addresses, /10\.33/)
        assert.equal((await one.pod.ping('10.34.0.1')).received, 1)
        // Also an address that pods still use, and in IPv6 one whose subnet overlaps; others stay.
        const six = (subnet: string, gateway: string): Json => ({
          ...{ name: 'net33', bridge: 'br33', isGateway: true, forceAddress: true },
          ipam: { type: 'host-local', ranges: [[{ subnet, gateway }]] }
        })
        const addressesOf6 = async () =>
          (await at.host.sh('ip -o -6 addr show br33 scope global')).stdout.match(/fd00:[^ ]*/g)
        const pods = [one]
        for (const [subnet, gateway, left] of [
          ['fd00:33::/64', 'fd00:33::1', ['fd00:33::1/64']],
          ['fd00:33::/48', 'fd00:33::2', ['fd00:33::2/48']],
          ['fd00:34::/64', 'fd00:34::1', ['fd00:34::1/64', 'fd00:33::2/48']]
        ] as const) {
          pods.push(await added(six(subnet, gateway)))
          assert.deepEqual(await addressesOf6(), left)
        }
        for (const each of pods) await each.del()
      }
      await at.host.exec('ip', ['link', 'del', 'br33'])
    })

    test('case 34: a link of another kind in the place of the bridge is said to be one', async () => {
      await at.fails('ADD', type, { config: { ...config, bridge: 'eth0' }, pod: await at.pod() }, /eth0.*not a bridge/)
      await isClean()
    })

    test('case 36: DNS of the configuration is that of the result', async () => {
      const dns = { nameservers: ['10.0.0.53'], search: ['a.example'] }
      const one = await added({ dns })
      assert.deepEqual(one.result.dns, dns)
      await one.del()
    })

    test('cases 37 to 39: DEL takes all away, again, for what never was, without namespace, and in an old version', async () => {
      const one = await added()
      await one.del()
      await isClean()
      assert.doesNotMatch((await one.pod.exec('ip', ['-o', 'link'])).stdout, /eth0/)
      await one.del()
      await at.ok('DEL', type, { config, id: 'never', netns: '/run/netns/none' })
      for (const netns of ['', '/run/netns/none']) {
        const other = await added()
        await at.ok('DEL', type, { config, id: other.pod.name, netns })
        await isClean()
      }
      const gone = await added({ cniVersion: '0.3.1' })
      await gone.pod[Symbol.asyncDispose]()
      await gone.del()
      await isClean()
    })

    test('case 67: loopback and the pod network at the same time, fifty times', async () => {
      for (let round = 0; round < 50; round++) {
        const pod = await at.pod()
        const lo = { config: { name: 'cni-loopback', cniVersion: '0.3.1' }, pod, ifname: 'lo' }
        await Promise.all([at.ok('ADD', 'loopback', lo), at.ok('ADD', type, { config, pod })])
        await Promise.all([at.ok('DEL', 'loopback', lo), at.ok('DEL', type, { config, pod })])
        await pod[Symbol.asyncDispose]()
      }
      await isClean()
    })

    test('case 68: CHECK agrees right after ADD, from 0.4.0 on, and needs prevResult', async () => {
      for (const cniVersion of ['0.4.0', '1.0.0', '1.1.0']) {
        const { call, result, del } = await added({ cniVersion })
        await at.ok('CHECK', type, { ...call, config: { ...call.config, prevResult: result } })
        await at.fails('CHECK', type, call, /prevResult/)
        await del()
      }
      const old = { config: { ...config, cniVersion: '0.3.1' }, pod: await at.pod() }
      await at.fails('CHECK', type, old, /does not allow CHECK/, 1)
    })

    test('case 69: CHECK names the one thing that is broken, and agrees once it is repaired', async () => {
      const { pod, call, result, address, del } = await added()
      const checked = { ...call, config: { ...call.config, prevResult: result } }
      const file = `/var/lib/cni/networks/net1/${address}`
      const broken: readonly (readonly [Pick<Pod, 'sh'>, string, string, RegExp])[] = [
        [
          pod,
          `ip addr del ${address}/24 dev eth0`,
          `ip addr add ${address}/24 dev eth0; ip route add default via 10.10.0.1`,
          /10\.10\.0\.\d+\/24/
        ],
        [
          pod,
          'ip link set eth0 down; ip link set eth0 name x0',
          'ip link set x0 name eth0; ip link set eth0 up; ip route add default via 10.10.0.1',
          /eth0/
        ],
        [
          pod,
          'ip link set eth0 address 02:00:00:00:00:0b',
          `ip link set eth0 address ${interfacesOf(result).at(-1)?.mac}`,
          /eth0/
        ],
        [at.host, `mv ${file} /run/kept`, `mv /run/kept ${file}`, /reservation/]
      ]
      for (const [where, harm, repair, words] of broken) {
        await where.sh(harm)
        await at.fails('CHECK', type, checked, words)
        await where.sh(repair)
        await at.ok('CHECK', type, checked)
      }
      await del()
      await isClean()
    })

    test('case 70: what later plugins of a chain may change does not matter to CHECK', async () => {
      const { pod, call, result, del } = await added()
      await pod.sh('ip route add 10.55.0.0/16 via 10.10.0.1; ip link set eth0 mtu 1300')
      await at.ok('CHECK', type, { ...call, config: { ...call.config, prevResult: result } })
      await del()
    })

    test('CHECK stays right for a second interface when the first is gone, and sees a rewritten reservation', async () => {
      for (const end of ['DEL', 'GC']) {
        const one = await added()
        const two = await added({}, { pod: one.pod, ifname: 'eth1' })
        const checked = { ...two.call, config: { ...two.call.config, prevResult: two.result } }
        const listed = [{ containerID: two.pod.name, ifname: 'eth1' }]
        await at.ok('CHECK', type, checked)
        if (end === 'DEL') await one.del()
        else await at.ok('GC', type, { config: { ...config, 'cni.dev/valid-attachments': listed } })
        await at.ok('CHECK', type, checked)
        const file = `/var/lib/cni/networks/net1/${two.address}`
        await at.host.sh(`cp ${file} /run/kept; printf other > ${file}`)
        await at.fails('CHECK', type, checked, /reservation/)
        await at.host.sh(`cat /run/kept > ${file}; rm /run/kept`)
        await at.ok('CHECK', type, checked)
        await two.del()
      }
      await isClean()
    })

    test('CHECK needs no CNI_ARGS, and does not compare the notes by which weftd finds its own', async () => {
      const args = 'IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1'
      const bandwidth = { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 }
      const runtimeConfig = { portMappings: [{ hostPort: 8081, containerPort: 80, protocol: 'tcp' }], bandwidth }
      const {
        pod,
        result: first,
        del
      } = await added({ runtimeConfig, ...(type === 'bridge' && { macspoofchk: true }) }, { args })
      const call = (keys: Json, prevResult: Json) => ({ pod, args, config: { ...keys, runtimeConfig, prevResult } })
      const chain = type === 'bridge' ? ['bandwidth', 'portmap'] : []
      let result = first
      for (const each of chain) result = await at.ok('ADD', each, call({}, result))
      for (const each of [type, ...chain])
        await at.ok('CHECK', each, { ...call(each === type ? config : {}, result), args: '' })
      const host = interfacesOf(result).find(({ name }) => /^veth/.test(String(name)))?.name
      await at.cluster.daemon(1).kill('SIGKILL')
      const alias = `weft net1 ${pod.name} eth0 as another release writes it`
      await at.host.exec('ip', ['link', 'set', String(host), 'alias', alias])
      await at.cluster.daemon(1).restart()
      await at.ok('CHECK', type, call(config, result))
      for (const each of chain.toReversed()) await at.ok('DEL', each, call({}, result))
      await del()
      await isClean()
    })

    test('CHECK refuses the result of another sandbox and names both', async () => {
      const [one, other] = [await added(), await at.pod()]
      const checked = { ...one.call, config: { ...one.call.config, prevResult: one.result } }
      await at.fails('CHECK', type, { ...checked, netns: other.netns }, new RegExp(one.pod.netns), 106)
      await at.fails('CHECK', type, { ...checked, netns: other.netns }, new RegExp(other.netns), 106)
      await at.ok('CHECK', type, { ...checked, netns: `/proc/self/root${one.pod.netns}` })
      await one.del()
    })

    test('case 71: GC takes away what is not listed, under either key and none, in its own network only', async () => {
      const other = { ...network('10.12.0.0/24'), name: 'net2', bridge: 'br2' }
      const foreign = await added(other)
      for (const key of ['cni.dev/valid-attachments', 'cni.dev/attachments', '']) {
        const [one, two, three] = [await added(), await added(), await added()]
        const listed = key === '' ? {} : { [key]: [{ containerID: one.pod.name, ifname: 'eth0' }] }
        await at.ok('GC', type, { config: { ...config, ...listed } })
        assert.deepEqual(await at.reserved(), key === '' ? [] : [one.address])
        assert.equal((await veths()).length, key === '' ? 1 : 2)
        if (key !== '') assert.equal((await one.pod.ping('10.10.0.1')).received, 1)
        await at.ok('GC', type, { config: { ...config, 'cni.dev/valid-attachments': null } })
        for (const each of [one, two, three]) await each.del()
      }
      assert.equal((await foreign.pod.ping('10.12.0.1')).received, 1)
      await foreign.del()
      await isClean()
    })

    test('case 73: STATUS is silent while there is room, and 50 when there is none', async () => {
      const config = { ...network('10.10.0.0/30'), name: 'small', bridge: 'br73' }
      await at.ok('STATUS', type, { config })
      const one = await added(config)
      await at.fails('STATUS', type, { config }, /10\.10\.0\.1-10\.10\.0\.2/, 50)
      await one.del()
    })

    test('cases 74 and 75: both families work at once, nothing is tentative, and disable_ipv6 is lifted', async () => {
      const pod = await at.pod()
      await pod.sh(
        'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'
      )
      const dual = { ...network('10.14.0.0/24', 'fd00:14::/64'), name: 'dual', bridge: 'br74' }
      const one = await added(dual, { pod })
      assert.equal((await pod.ping('fd00:14::1')).received, 1)
      assert.equal((await pod.ping('10.14.0.1')).received, 1)
      assert.equal((await pod.exec('ip', ['-6', 'addr', 'show', 'dev', 'eth0', 'tentative'])).stdout, '')
      const routes = (await pod.sh('ip route; ip -6 route')).stdout
      assert.match(routes, /default via 10\.14\.0\.1[\s\S]*default via fd00:14::1/)
      assert.equal((await at.host.sh('cat /proc/sys/net/ipv4/ip_forward')).stdout.trim(), '1')
      await one.del()
    })

    test('case 78: fifty ADDs on a bridge that is not there yet, then fifty DELs among fifty further ADDs', {
      timeout: 180_000
    }, async () => {
      await at.host.exec('ip', ['link', 'del', 'br1'], { check: false })
      const first = await Promise.all(Array.from({ length: 50 }, () => added()))
      const rest = await Promise.all([
        ...Array.from({ length: 50 }, () => added()),
        ...first.map(async (each) => {
          await each.del()
          return undefined
        })
      ])
      const later = rest.filter((each) => each !== undefined)
      assert.equal(new Set(later.map(({ address }) => address)).size, 50)
      const [gateway] = (await at.host.ip('-4', 'addr', 'show', 'br1')) as readonly Json[]
      assert.equal(((gateway?.addr_info ?? []) as Json[]).length, 1)
      await Promise.all(later.map((each) => each.del()))
      await isClean()
    })
  })
}
