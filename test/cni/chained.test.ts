// Plugins behind others: tuning and loopback, cases 7, 58, 60 and 66 of the CNI reference.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Json } from '../lab/cni.ts'
import { until } from '../lab/run.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']

describe('chained plugins', { skip, timeout: 300_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
  })
  after(() => at[Symbol.asyncDispose]())

  const main: Json = { bridge: 'br1', isGateway: true, ipam: { type: 'host-local', subnet: '10.10.0.0/24' } }
  async function made() {
    const pod = await at.pod()
    const prevResult = await at.ok('ADD', 'bridge', { config: main, pod })
    const tuned = (config: Json) => ({ config: { ...config, prevResult }, pod })
    return { pod, prevResult, tuned, del: () => at.ok('DEL', 'bridge', { config: main, pod }) }
  }

  test('case 7: tuning with nothing to do hands on whatever stands in prevResult', async () => {
    const { pod, del } = await made()
    const prevResult = {
      cniVersion: '1.1.0',
      interfaces: [
        { name: 'br1', mac: '02:00:00:00:00:01', mtu: 1500 },
        {
          name: 'eth0',
          mac: '02:00:00:00:00:02',
          mtu: 1400,
          sandbox: pod.netns,
          socketPath: '/s',
          pciID: '0000:00:1f.6'
        }
      ],
      ips: [{ interface: 1, address: '10.10.0.2/24', gateway: '10.10.0.1' }],
      routes: [{ dst: '0.0.0.0/0', gw: '10.10.0.1', priority: 7, table: 99, scope: 0, mtu: 1300, advmss: 1200 }],
      dns: { nameservers: ['10.0.0.53'] }
    }
    assert.deepEqual(await at.ok('ADD', 'tuning', { config: { prevResult }, pod }), prevResult)
    await del()
  })

  test('case 58: without prevResult tuning says that it must be chained', async () => {
    await at.fails('ADD', 'tuning', { pod: await at.pod() }, /prevResult.*chained/, 7)
  })

  test('tuning sets what is asked for, CHECK names what has changed, and DEL puts the interface back', async () => {
    const { pod, prevResult, tuned, del } = await made()
    const keys = {
      mac: '02:00:00:00:00:0a',
      mtu: 1300,
      sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1', 'net.core.somaxconn': '77' }
    }
    const result = await at.ok('ADD', 'tuning', tuned(keys))
    const [inside] = (result.interfaces as readonly Json[]).filter(({ sandbox }) => sandbox !== undefined)
    assert.equal(inside?.mac, keys.mac)
    assert.deepEqual([result.ips, result.routes], [prevResult.ips, prevResult.routes])
    const state = async () => {
      const [link] = (await pod.ip('link', 'show', 'eth0')) as readonly Json[]
      const { stdout } = await pod.sh('cat /proc/sys/net/ipv4/conf/eth0/arp_filter /proc/sys/net/core/somaxconn')
      return [link?.address, link?.mtu, stdout.split('\n').slice(0, 2)]
    }
    assert.deepEqual(await state(), [keys.mac, 1300, ['1', '77']])
    assert.deepEqual(await at.files('/run/cni/tuning'), [`${pod.name}_eth0.json`])
    const checked = { config: { ...keys, prevResult: result }, pod }
    await at.ok('CHECK', 'tuning', checked)
    // The MAC that a later plugin set is in prevResult, so that the main plugin agrees as well.
    await at.ok('CHECK', 'bridge', { config: { ...main, prevResult: result }, pod })
    for (const [harm, repair, words] of [
      ['ip link set eth0 mtu 1400', 'ip link set eth0 mtu 1300', /MTU 1400/],
      ['ip link set eth0 address 02:00:00:00:00:0b', `ip link set eth0 address ${keys.mac}`, /02:00:00:00:00:0b/],
      ['echo 5 > /proc/sys/net/core/somaxconn', 'echo 77 > /proc/sys/net/core/somaxconn', /somaxconn 5/]
    ] as const) {
      await pod.sh(harm)
      await at.fails('CHECK', 'tuning', checked, words)
      await pod.sh(repair)
    }
    await at.ok('DEL', 'tuning', { config: keys, pod })
    const [old] = (prevResult.interfaces as readonly Json[]).filter(({ sandbox }) => sandbox !== undefined)
    assert.deepEqual((await state()).slice(0, 2), [old?.mac, 1500])
    assert.deepEqual(await at.files('/run/cni/tuning'), [])
    await del()
  })

  test('tuning with sysctls alone needs no interface, and refuses a sysctl that is written twice', async () => {
    const pod = await at.pod()
    const prevResult = { cniVersion: '1.1.0', ips: [{ address: '10.10.0.2/24' }] }
    const config = { sysctl: { 'net.core.somaxconn': '78' }, prevResult }
    await at.ok('ADD', 'tuning', { pod, config })
    assert.equal((await pod.sh('cat /proc/sys/net/core/somaxconn')).stdout.trim(), '78')
    await at.ok('CHECK', 'tuning', { pod, config })
    await at.ok('DEL', 'tuning', { pod, config })
    await at.fails('ADD', 'tuning', { pod, config: { ...config, mtu: 1300 } }, /no interface eth0/, 107)
    const twice = JSON.stringify({ cniVersion: '1.1.0', name: 'net1', ...config }).replace(
      '"78"',
      '"78","net.core.somaxconn":"79"'
    )
    await at.fails('ADD', 'tuning', { pod, config: twice }, /somaxconn.*second time/, 7)
  })

  test('tuning switches promiscuity and multicast, sets the queue, and DEL puts them back', async () => {
    const { pod, tuned, del } = await made()
    const keys = { promisc: true, allmulti: true, txQLen: 500 }
    const result = await at.ok('ADD', 'tuning', tuned(keys))
    const state = async () => {
      const [link] = (await pod.ip('link', 'show', 'eth0')) as readonly (Json & { readonly flags: readonly string[] })[]
      return [link?.flags.includes('PROMISC'), link?.flags.includes('ALLMULTI'), link?.txqlen]
    }
    assert.deepEqual(await state(), [true, true, 500])
    const checked = { config: { ...keys, prevResult: result }, pod }
    await at.ok('CHECK', 'tuning', checked)
    for (const [harm, repair, words] of [
      ['ip link set eth0 promisc off', 'ip link set eth0 promisc on', /promisc false/],
      ['ip link set eth0 allmulticast off', 'ip link set eth0 allmulticast on', /allmulti false/],
      ['ip link set eth0 txqueuelen 10', 'ip link set eth0 txqueuelen 500', /txQLen 10/]
    ] as const) {
      await pod.sh(harm)
      await at.fails('CHECK', 'tuning', checked, words)
      await pod.sh(repair)
    }
    await at.ok('DEL', 'tuning', { config: keys, pod })
    assert.deepEqual(await state(), [false, false, 1000])
    assert.deepEqual(await at.files('/run/cni/tuning'), [])
    await del()
  })

  test('GC forgets the settings and the way through of containers that are not listed, of its own network', async () => {
    const [one, two] = [await made(), await made()]
    for (const { tuned } of [one, two]) {
      await at.ok('ADD', 'tuning', tuned({ mtu: 1300 }))
      await at.ok('ADD', 'firewall', tuned({}))
    }
    const valid = { 'cni.dev/valid-attachments': [{ containerID: one.pod.name, ifname: 'eth0' }] }
    for (const type of ['tuning', 'firewall']) await at.ok('GC', type, { config: { ...valid, name: 'another' } })
    assert.equal((await at.files('/run/cni/tuning')).length, 2)
    for (const type of ['tuning', 'firewall']) await at.ok('GC', type, { config: valid })
    assert.deepEqual(await at.files('/run/cni/tuning'), [`${one.pod.name}_eth0.json`])
    assert.match(await at.ruleset(), /forward_4_/)
    for (const type of ['tuning', 'firewall']) await at.ok('GC', type, {})
    assert.deepEqual(await at.files('/run/cni/tuning'), [])
    assert.doesNotMatch(await at.ruleset(), /forward_4_/)
    for (const each of [one, two]) await each.del()
  })

  /** Containers on two bridges, with what the firewall plugin makes of them. */
  async function behindFirewall(ingressPolicy: string) {
    const on = async (bridge: string, subnet: string) => {
      const config = {
        ...{ name: bridge, bridge, isDefaultGateway: true },
        ipam: { type: 'host-local', subnet }
      }
      const pod = await at.pod()
      const prevResult = await at.ok('ADD', 'bridge', { config, pod })
      const call = { config: { name: bridge, ingressPolicy, prevResult }, pod }
      assert.deepEqual(await at.ok('ADD', 'firewall', call), prevResult)
      await at.ok('CHECK', 'firewall', call)
      const address = String(addressesOf(prevResult)[0]).split('/')[0] as string
      const del = async () => {
        await at.ok('DEL', 'firewall', { config: { name: bridge }, pod, netns: '' })
        await at.ok('DEL', 'bridge', { config, pod })
      }
      return { pod, address, call, del }
    }
    const pods = [
      await on('fw1', '10.51.0.0/24'),
      await on('fw1', '10.51.0.0/24'),
      await on('fw2', '10.52.0.0/24')
    ] as const
    const reaches = async (from: 0 | 1 | 2, to: 0 | 1 | 2) =>
      (await pods[from].pod.ping(pods[to].address)).received === 1
    return { pods, reaches }
  }

  for (const [policy, onOwn] of [
    ['same-bridge', true],
    ['isolated', false]
  ] as const) {
    test(`firewall with ingressPolicy ${policy} keeps containers apart, also after a restart of weftd, but not from the world`, async () => {
      const { pods, reaches } = await behindFirewall(policy)
      const beyond = async () => (await pods[0].pod.ping(at.host.address)).received
      const isApart = async () => {
        assert.deepEqual([await reaches(0, 1), await reaches(0, 2), await reaches(2, 0)], [onOwn, false, false])
        assert.equal(await beyond(), 1)
      }
      await isApart()
      await at.cluster.daemon(1).restart('SIGKILL')
      await isApart()
      await at.host.sh('nft flush set inet weft isolated_bridges; nft flush set bridge weft isolated_ports || true')
      await until(async () => !(await reaches(0, 2)) && (await reaches(0, 1)) === onOwn, {
        what: 'the sets to be put right'
      })
      for (const { call } of pods) await at.ok('CHECK', 'firewall', call)
      for (const { del } of pods) await del()
      assert.doesNotMatch(await at.ruleset(), /-apart/)
      await at.host.sh('ip link del fw1; ip link del fw2')
    })
  }

  test('firewall with a policy says that it needs a bridge, and leaves nothing', async () => {
    const pod = await at.pod()
    const prevResult = { cniVersion: '1.1.0', interfaces: [{ name: 'eth0', sandbox: pod.netns }] }
    const call = { config: { ingressPolicy: 'isolated', prevResult }, pod }
    await at.fails('ADD', 'firewall', call, /no bridge/, 107)
  })

  test('case 60: DEL of tuning succeeds without prevResult, without namespace, and twice', async () => {
    const { pod, tuned, del } = await made()
    const keys = { mtu: 1300 }
    await at.ok('ADD', 'tuning', tuned(keys))
    for (let times = 0; times < 2; times++) await at.ok('DEL', 'tuning', { config: keys, id: pod.name, netns: '' })
    assert.deepEqual(await at.files('/run/cni/tuning'), [])
    await del()
  })

  test('tuning refuses what the list of the node does not allow, and an interface that is not there', async () => {
    const { pod, tuned, prevResult, del } = await made()
    await at.host.sh("mkdir -p /etc/cni/tuning; printf '^net\\\\.core\\\\..*$\\n' > /etc/cni/tuning/allowlist.conf")
    await at.ok('ADD', 'tuning', tuned({ sysctl: { 'net.core.somaxconn': '5' } }))
    await at.fails(
      'ADD',
      'tuning',
      tuned({ sysctl: { 'net.ipv4.ip_forward': '1' } }),
      /net\.ipv4\.ip_forward is not allowed/,
      7
    )
    const allowed = tuned({ sysctl: { 'net.core.somaxconn': '5' } })
    await at.host.sh("printf '(\\n' > /etc/cni/tuning/allowlist.conf")
    await at.fails('ADD', 'tuning', allowed, /allowlist\.conf can't be read: Invalid regular expression/, 7)
    await at.host.sh('rm /etc/cni/tuning/allowlist.conf; mkdir /etc/cni/tuning/allowlist.conf')
    await at.fails('ADD', 'tuning', allowed, /allowlist\.conf can't be read: .*EISDIR/, 7)
    await at.host.sh('rmdir /etc/cni/tuning/allowlist.conf')
    await at.fails('ADD', 'tuning', { config: { mtu: 1300, prevResult }, pod, ifname: 'eth7' }, /no interface eth7/)
    await at.fails('ADD', 'tuning', tuned({ sysctl: { 'net.no.such': '5' } }), /net\/no\/such/)
    await del()
  })

  test('firewall lets packets through that another program drops, also after a restart of weftd, and takes that back', async () => {
    const config = {
      ...main,
      bridge: 'br3',
      name: 'fw',
      isDefaultGateway: true,
      ipMasq: true,
      ipam: { type: 'host-local', subnet: '10.13.0.0/24' }
    }
    const pod = await at.pod()
    const prevResult = await at.ok('ADD', 'bridge', { config, pod })
    await at.host.exec('iptables', ['-P', 'FORWARD', 'DROP'])
    const beyond = '192.168.10.1'
    const received = async () => (await pod.ping(beyond)).received
    await until(async () => (await received()) === 0, { what: 'the policy to drop', deadlineMs: 10_000 })
    // As Nomad names it; the reference makes the chain, too, and calls it first.
    const call = { config: { name: 'fw', iptablesAdminChainName: 'NOMAD-ADMIN', prevResult }, pod }
    assert.deepEqual(await at.ok('ADD', 'firewall', call), prevResult)
    await until(async () => (await received()) === 1, { what: `${beyond} to answer`, deadlineMs: 10_000 })
    await at.ok('CHECK', 'firewall', call)
    const { stdout: forward } = await at.host.exec('iptables', ['-S', 'FORWARD'])
    assert.equal(forward.match(/10\.13\.0\.0\/24 .*-j ACCEPT/g)?.length, 2, forward)
    for (const chain of ['NOMAD-ADMIN', 'CNI-ADMIN']) {
      await at.host.sh(`iptables -N ${chain} || true; iptables -A ${chain} -d ${beyond} -j DROP`)
      await until(async () => (await received()) === 0, { what: `${chain} to be obeyed`, deadlineMs: 10_000 })
      await at.host.exec('iptables', ['-F', chain])
      await until(async () => (await received()) === 1, { what: `${beyond} to answer again`, deadlineMs: 10_000 })
    }
    await at.host.exec('iptables', ['-A', 'NOMAD-ADMIN', '-d', beyond, '-j', 'DROP'])
    await at.cluster.daemon(1).restart('SIGKILL')
    assert.equal(await received(), 0)
    await at.host.exec('iptables', ['-F', 'NOMAD-ADMIN'])
    await until(async () => (await received()) === 1, {
      what: `${beyond} to answer after a restart`,
      deadlineMs: 10_000
    })
    await at.ok('DEL', 'firewall', { config: { name: 'fw' }, pod, netns: '' })
    await at.ok('DEL', 'bridge', { config, pod })
    await until(async () => !(await at.ruleset()).includes('10.13.0.0'), {
      what: 'the rules to go',
      deadlineMs: 10_000
    })
    assert.doesNotMatch((await at.host.exec('iptables', ['-S', 'FORWARD'])).stdout, /ADMIN|10\.13\./)
    await at.host.exec('iptables', ['-P', 'FORWARD', 'ACCEPT'])
  })

  test('case 66: loopback is up and told in every version, whatever the interface is called; down, CHECK says so', async () => {
    for (const cniVersion of versions) {
      const pod = await at.pod()
      const call = { config: { cniVersion, name: 'lo' }, pod, ifname: 'whatever' }
      const result = await at.ok('ADD', 'loopback', call)
      assert.match((await pod.exec('ip', ['link', 'show', 'lo'])).stdout, /LOOPBACK,UP/)
      if (cniVersion < '0.3.0') assert.deepEqual(result.ip4, { ip: '127.0.0.1/8' })
      else {
        const loopback = { name: 'lo', mac: '00:00:00:00:00:00', sandbox: pod.netns }
        assert.deepEqual(result.interfaces, [loopback])
        assert.deepEqual(
          (result.ips as readonly Json[]).map(({ address }) => address),
          ['127.0.0.1/8', '::1/128']
        )
      }
      if (cniVersion >= '0.4.0') {
        const checked = { ...call, config: { ...call.config, prevResult: result } }
        await at.ok('CHECK', 'loopback', checked)
        await pod.sh('ip link set lo down')
        await at.fails('CHECK', 'loopback', checked, /lo is down/)
      }
      await at.ok('DEL', 'loopback', call)
      await at.ok('DEL', 'loopback', { ...call, netns: '/run/netns/none' })
    }
  })
})
