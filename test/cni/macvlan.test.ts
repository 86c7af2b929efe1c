// The macvlan plugin on a host device: reachability, results, CHECK and cleanup, with pools, static addresses and a
// third party's IPAM.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import type { Pod } from '../lab/pod.ts'
import { type Asked, addressesOf, CniHost, skip } from './cni-host.ts'

describe('macvlan', { skip, timeout: 600_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
  })
  after(() => at[Symbol.asyncDispose]())

  const range = { subnet: '192.168.10.0/24', rangeStart: '192.168.10.100', rangeEnd: '192.168.10.200' }
  const config: Json = {
    master: 'eth0',
    ipam: { type: 'host-local', ranges: [[range]], routes: [{ dst: '0.0.0.0/0' }] }
  }
  const addressOf = (result: Json) => String(addressesOf(result)[0]).split('/')[0] as string

  async function added(over: Json = {}, more: Asked = {}) {
    const pod = more.pod ?? (await at.pod())
    const call = { ...more, config: { ...config, ...over }, pod }
    const result = await at.ok('ADD', 'macvlan', call)
    return { pod, call, result, address: addressOf(result), del: () => at.ok('DEL', 'macvlan', call) }
  }
  const linkOf = async (pod: Pod, name = 'eth0') =>
    ((await pod.ip('-d', 'link', 'show', name)) as readonly Json[])[0] as Json & { readonly linkinfo: Json }
  const names = async (pod: Pod) =>
    ((await pod.ip('link')) as readonly { readonly ifname: string }[]).map(({ ifname }) => ifname)

  test('containers reach each other and the network of the device, with what the result tells', async () => {
    const [one, two] = [await added(), await added({ mtu: 1400 })]
    for (const to of [two.address, '192.168.10.1']) assert.equal((await one.pod.ping(to)).received, 1, to)
    const link = await linkOf(one.pod)
    assert.deepEqual(one.result.interfaces, [
      { name: 'eth0', mac: link.address, mtu: link.mtu, sandbox: one.pod.netns }
    ])
    assert.deepEqual(one.result.ips, [{ interface: 0, address: `${one.address}/24`, gateway: '192.168.10.1' }])
    assert.deepEqual(one.result.routes, [{ dst: '0.0.0.0/0' }])
    assert.equal((link.linkinfo.info_data as Json).mode, 'bridge')
    assert.equal((await linkOf(two.pod)).mtu, 1400)
    assert.match((await one.pod.exec('ip', ['route'])).stdout, /default via 192\.168\.10\.1 dev eth0/)
    for (const each of [one, two]) {
      await at.ok('CHECK', 'macvlan', { ...each.call, config: { ...each.call.config, prevResult: each.result } })
      await each.del()
      assert.deepEqual(await names(each.pod), ['lo'])
      await each.del()
    }
    assert.deepEqual(await at.reserved(), [])
  })

  test('mode, MAC address, the device of the default route, and a device inside the container are as asked for', async () => {
    const mac = '02:00:00:00:00:0a'
    const one = await added({ mode: 'private', master: '' }, { args: `IgnoreUnknown=1;MAC=${mac}` })
    const link = await linkOf(one.pod)
    assert.deepEqual([link.address, (link.linkinfo.info_data as Json).mode], [mac, 'private'])
    await one.pod.sh('ip link add inner type veth peer name other; ip link set inner up')
    const second = {
      config: { ...config, master: 'inner', linkInContainer: true },
      pod: one.pod,
      ifname: 'eth1'
    }
    const result = await at.ok('ADD', 'macvlan', second)
    assert.equal((await linkOf(one.pod, 'eth1')).link, 'inner')
    await at.ok('CHECK', 'macvlan', { ...second, config: { ...second.config, prevResult: result } })
    assert.match((await one.pod.exec('ip', ['route', 'show', 'default'])).stdout, /dev eth0[\s\S]*dev eth1 .*metric 1/)
    await at.ok('DEL', 'macvlan', second)
    await one.del()
    assert.deepEqual(await at.reserved(), [])
  })

  test('what cannot be is named, and nothing is left of it', async () => {
    const pod = await at.pod()
    const fails = (over: Json, words: RegExp, code?: number) =>
      at.fails('ADD', 'macvlan', { config: { ...config, ...over }, pod }, words, code)
    await fails({ master: 'eth9' }, /no device eth9/, 7)
    await fails({ mtu: 9000 }, /invalid MTU 9000, must be \[0, master MTU\(1500\)\]/, 7)
    await fails({ master: 'eth9', linkInContainer: true }, /eth9/)
    const away = { ...(config.ipam as Json), routes: [{ dst: '10.98.0.0/16', gw: '10.77.0.9' }] }
    await fails({ ipam: away }, /10\.77\.0\.9/)
    await at.fails('STATUS', 'macvlan', { config: { ...config, master: 'eth9' } }, /no device eth9/)
    await at.ok('STATUS', 'macvlan', { config })
    await pod.sh('ip link add eth0 type veth peer name other')
    await fails({}, /eth0 exists already/, 102)
    await at.ok('DEL', 'macvlan', { config, pod })
    assert.deepEqual((await names(pod)).sort(), ['eth0', 'lo', 'other'])
    assert.deepEqual(await at.reserved(), [])
    const one = await added()
    await at.fails('ADD', 'macvlan', one.call, /exists already/)
    assert.equal((await one.pod.ping('192.168.10.1')).received, 1)
    await one.del()
  })

  test('CHECK names the one thing that is broken', async () => {
    const { pod, call, result, address, del } = await added()
    const checked = { ...call, config: { ...call.config, prevResult: result } }
    const file = `/var/lib/cni/networks/net1/${address}`
    for (const [where, harm, repair, words] of [
      [pod, 'ip link set eth0 down', 'ip link set eth0 up; ip route add default via 192.168.10.1', /eth0/],
      [
        pod,
        `ip addr add 192.168.10.250/24 dev eth0; ip addr del ${address}/24 dev eth0`,
        `ip addr add ${address}/24 dev eth0; ip route replace default via 192.168.10.1`,
        /192\.168\.10\.1\d\d\/24/
      ],
      [pod, 'ip route del default', 'ip route add default via 192.168.10.1', /default/],
      [at.host, `mv ${file} /run/kept`, `mv /run/kept ${file}`, /reservation/]
    ] as const) {
      await where.sh(harm)
      await at.fails('CHECK', 'macvlan', checked, words, 106)
      await where.sh(repair)
      await at.ok('CHECK', 'macvlan', checked)
    }
    await del()
  })

  test('GC frees the addresses of containers that are not listed; DEL needs no namespace', async () => {
    const [one, two] = [await added(), await added()]
    await two.pod[Symbol.asyncDispose]()
    await at.ok('GC', 'macvlan', {
      config: { ...config, 'cni.dev/valid-attachments': [{ containerID: one.pod.name, ifname: 'eth0' }] }
    })
    assert.deepEqual(await at.reserved(), [one.address])
    await at.ok('DEL', 'macvlan', { config, id: one.pod.name, netns: '' })
    assert.deepEqual(await at.reserved(), [])
  })

  test('an IPAM plugin of somebody else finds the interface, and takes it along when it fails', async () => {
    await at.host.sh(`mkdir -p /run/third; cat > /run/third/third <<'end'
#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
  ADD) nsenter --net="$CNI_NETNS" ip link show "$CNI_IFNAME" >&2 || { echo '{"code":123,"msg":"no link"}'; exit 1; }
       [ -e /run/third/fail ] && { echo '{"code":11,"msg":"no lease"}'; exit 1; }
       echo '{"cniVersion":"1.1.0","ips":[{"address":"192.168.10.220/24","gateway":"192.168.10.1"}],"routes":[{"dst":"0.0.0.0/0"}]}';;
  DEL) echo freed >> /run/third/freed;;
esac
end
chmod 755 /run/third/third`)
    const third = { ipam: { type: 'third' } }
    const path = [BIN, '/run/third']
    const one = await added(third, { path })
    assert.equal(one.address, '192.168.10.220')
    assert.equal((await one.pod.ping('192.168.10.1')).received, 1)
    await at.ok('CHECK', 'macvlan', { ...one.call, config: { ...one.call.config, prevResult: one.result } })
    await one.del()
    assert.deepEqual(await names(one.pod), ['lo'])
    assert.equal((await at.host.sh('cat /run/third/freed')).stdout, 'freed\n')
    await at.host.sh('touch /run/third/fail')
    await at.fails('ADD', 'macvlan', { ...one.call }, /no lease/, 11)
    assert.deepEqual(await names(one.pod), ['lo'])
  })
})
