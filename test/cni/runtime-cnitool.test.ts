// cnitool, the CNI project's own caller, with our executables: every verb, and chains in which ours and others' plugins
// stand side by side.
import assert from 'node:assert/strict'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BIN, Cluster } from '../lab/cluster.ts'
import { addressesOf, Cnitool, debianPlugins, pluginFolder } from '../lab/cnitool.ts'
import { missingPeer } from '../lab/peers.ts'
import { until } from '../lab/run.ts'
import { podTraces } from '../lab/traces.ts'

const skip = process.getuid?.() === 0 ? missingPeer('bin/cnitool') : 'needs root'

describe('cnitool', { skip, timeout: 600_000 }, () => {
  const up = new AsyncDisposableStack()
  let cluster: Cluster

  before(
    async () => {
      cluster = up.use(await Cluster.start({ hosts: [2] }))
    },
    { timeout: 120_000 }
  )
  after(() => up.disposeAsync(), { timeout: 120_000 })

  /** Tells a story about a tool, after which the host must have no more of pods on it than before. */
  async function leavingNothing(story: () => Promise<void>): Promise<void> {
    const earlier = await podTraces(cluster.node(1))
    await story()
    assert.deepEqual(await podTraces(cluster.node(1)), earlier)
  }

  for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    test(`adds, checks and deletes with a list of version ${cniVersion}`, () =>
      leavingNothing(async () => {
        const tool = await Cnitool.of(cluster.node(1), { cniVersion, name: 'lab', plugins: [{ type: 'weft' }] })
        await using pod = await cluster.node(1).pod(`v${cniVersion}`)
        const result = await tool.add(pod.netns)
        assert.equal(result.cniVersion, cniVersion)
        assert.equal((await pod.ping(cluster.node(2).address)).received, 1)
        const checked = await tool.run('check', pod.netns, { check: false })
        if (cniVersion >= '0.4.0') assert.equal(checked.code, 0, checked.stderr)
        else assert.match(checked.stderr, /does not support the CHECK command/)
        await tool.run('status', pod.netns)
        for (let times = 0; times < 2; times++) await tool.run('del', pod.netns)
        assert.deepEqual(await pod.ip('link', 'show', 'eth0').catch(() => 'gone'), 'gone')
      }))
  }

  test("gc frees attachments in its cache and those that only weftd knows, and no other network's", () =>
    leavingNothing(async () => {
      const host = cluster.node(1)
      const list = { cniVersion: '1.1.0', plugins: [{ type: 'weft' }] }
      const [lab, beside] = [
        await Cnitool.of(host, { ...list, name: 'lab' }),
        await Cnitool.of(host, { ...list, name: 'beside' })
      ]
      await using kept = await host.pod('kept')
      await beside.add(kept.netns)
      {
        await using first = await host.pod('first')
        await using second = await host.pod('second')
        await lab.add(first.netns)
        await lab.add(second.netns)
        // An attachment that libcni forgot: its cache was lost.
        await host.sh('rm $(grep -l second /var/lib/cni/results/lab-*)')
      }
      await lab.run('gc', kept.netns)
      assert.equal((await kept.ping(cluster.node(2).address)).received, 1)
      await beside.run('del', kept.netns)
    }))

  test('status fails with cause and cure while ADD cannot be served, and succeeds afterwards', async () => {
    const tool = await Cnitool.of(cluster.node(1), { cniVersion: '1.1.0', name: 'lab', plugins: [{ type: 'weft' }] })
    await using pod = await cluster.node(1).pod('status')
    await tool.run('status', pod.netns)
    await cluster.daemon(1).stop()
    const { code, stderr, stdout } = await tool.run('status', pod.netns, { check: false })
    assert.notEqual(code, 0)
    assert.match(stdout + stderr, /weftd is not running on this node.*systemctl status weftd/s)
    await cluster.daemon(1).restart()
    await tool.run('status', pod.netns)
  })

  test('check names the missing address of a pod', async () => {
    const tool = await Cnitool.of(cluster.node(1), { cniVersion: '1.1.0', name: 'lab', plugins: [{ type: 'weft' }] })
    await using pod = await cluster.node(1).pod('broken')
    const [address] = addressesOf(await tool.add(pod.netns))
    await pod.exec('ip', ['addr', 'flush', 'dev', 'eth0'])
    const { code, stderr } = await tool.run('check', pod.netns, { check: false })
    assert.notEqual(code, 0)
    assert.match(stderr, new RegExp(String(address).replaceAll('.', '\\.')))
    await tool.run('del', pod.netns)
  })

  for (const [cniVersion, whose, portmap] of [
    ['0.3.1', 'Debian', debianPlugins],
    ['1.0.0', 'Debian', debianPlugins],
    ['0.3.1', 'ours', BIN],
    ['1.1.0', 'ours', BIN]
  ] as const) {
    test(`runs the list of flannel's installer in version ${cniVersion}, with portmap: ${whose}`, () =>
      leavingNothing(async () => {
        const host = cluster.node(1)
        const path = pluginFolder(host, { flannel: BIN, bridge: BIN, 'host-local': BIN, portmap })
        const plugins = [
          { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
          { type: 'portmap', capabilities: { portMappings: true } }
        ]
        const tool = await Cnitool.of(host, { cniVersion, name: 'cbr0', plugins }, path)
        await using pod = await host.pod(`flannel${cniVersion}`)
        const more = { capabilities: { portMappings: [{ hostPort: 8091, containerPort: 80, protocol: 'tcp' }] } }
        const [address] = addressesOf(await tool.add(pod.netns, more))
        const [, subnet] = /^FLANNEL_SUBNET=(\d+\.\d+\.\d+\.)/m.exec(
          (await host.exec('cat', ['/run/flannel/subnet.env'])).stdout
        ) as unknown as readonly string[]
        assert.ok(address?.startsWith(String(subnet)), `${address} is of ${subnet}`)
        const isReached = async () => (await pod.ping(cluster.node(2).address)).received === 1
        await until(isReached, { what: 'the other node to answer the pod' })
        await using _server = pod.spawn('busybox', ['httpd', '-f', '-p', '80', '-h', '/etc'])
        const url = `http://${host.address}:8091/debian_version`
        const answered = async () =>
          (await cluster.node(2).exec('wget', ['-q', '-O', '-', '-T', '2', '-t', '1', url], { check: false }))
            .stdout !== ''
        await until(answered, { what: 'the host port to answer', deadlineMs: 15_000 })
        // Debian's release fails on every host with a working ip6tables.
        if (cniVersion >= '0.4.0' && whose === 'ours') await tool.run('check', pod.netns, more)
        await tool.run('del', pod.netns, more)
      }))
  }

  const goPlugins = join(process.env.WEFT_CACHE ?? join(homedir(), '.cache/weft'), 'peers/cni')
  const missing = missingPeer('cni/tuning')
  const chain = [
    { type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.arp_filter': '1' }, mtu: 1300, capabilities: { mac: true } },
    { type: 'bandwidth', capabilities: { bandwidth: true } }
  ]
  for (const [owner, from, cniVersion, without] of [
    ['Debian', debianPlugins, '0.4.0', false],
    ['Debian', debianPlugins, '1.0.0', false],
    ['the CNI project', goPlugins, '1.1.0', missing]
  ] as const) {
    test(
      `runs weft in one chain of version ${cniVersion} with tuning and bandwidth of ${owner}`,
      { skip: without },
      () =>
        leavingNothing(async () => {
          const host = cluster.node(1)
          const path = pluginFolder(host, { weft: BIN, tuning: from, bandwidth: from })
          const list = { cniVersion, name: 'lab', plugins: [{ type: 'weft' }, ...chain] }
          const tool = await Cnitool.of(host, list, path)
          await using pod = await host.pod(`mixed${cniVersion}`)
          const limits = { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 16_000_000, egressBurst: 800_000 }
          const more = { capabilities: { bandwidth: limits, mac: '02:11:22:33:44:55' } }
          const result = await tool.add(pod.netns, more)
          const [link] = (await pod.ip('link', 'show', 'eth0')) as readonly {
            readonly mtu: number
            readonly address: string
          }[]
          assert.deepEqual([link?.mtu, link?.address], [1300, '02:11:22:33:44:55'])
          assert.equal((await pod.exec('cat', ['/proc/sys/net/ipv4/conf/eth0/arp_filter'])).stdout, '1\n')
          assert.match((await host.exec('tc', ['qdisc'])).stdout, /tbf .* rate 8Mbit[\s\S]*tbf .* rate 16Mbit/)
          assert.equal((await pod.ping(cluster.node(2).address)).received, 1, JSON.stringify(result))
          // We allow what plugins after us changed.
          await tool.run('check', pod.netns, more)
          await tool.run('del', pod.netns, more)
        })
    )

    test(
      `Weft's host-local assigns addresses for the bridge of ${owner} in version ${cniVersion}`,
      { skip: without },
      () =>
        leavingNothing(async () => {
          const host = cluster.node(1)
          const path = pluginFolder(host, { bridge: from, 'host-local': BIN })
          const ipam = { type: 'host-local', ranges: [[{ subnet: '10.77.0.0/29' }]], routes: [{ dst: '0.0.0.0/0' }] }
          const plugins = [{ type: 'bridge', bridge: 'theirs', isGateway: true, ipam }]
          const tool = await Cnitool.of(host, { cniVersion, name: 'theirs', plugins }, path)
          await using pod = await host.pod(`theirs${cniVersion}`)
          const [address] = addressesOf(await tool.add(pod.netns))
          assert.match(String(address), /^10\.77\.0\.[2-6]$/)
          assert.equal((await pod.ping('10.77.0.1')).received, 1)
          await tool.run('check', pod.netns)
          await tool.run('status', pod.netns)
          if (cniVersion === '1.1.0') await tool.run('gc', pod.netns)
          await tool.run('del', pod.netns)
          await host.exec('ip', ['link', 'del', 'theirs'])
        })
    )

    test(
      `runs Weft's bridge and host-local before portmap of ${owner} in version ${cniVersion}`,
      { skip: without },
      () =>
        leavingNothing(async () => {
          const host = cluster.node(1)
          const path = pluginFolder(host, { bridge: BIN, 'host-local': BIN, portmap: from })
          const ipam = { type: 'host-local', ranges: [[{ subnet: '10.78.0.0/29' }]], routes: [{ dst: '0.0.0.0/0' }] }
          const plugins = [
            { type: 'bridge', bridge: 'ours', isGateway: true, ipMasq: true, ipam },
            { type: 'portmap', capabilities: { portMappings: true } }
          ]
          const tool = await Cnitool.of(host, { cniVersion, name: 'ours', plugins }, path)
          await using pod = await host.pod(`ours${cniVersion}`)
          const portMappings = [{ hostPort: 8090, containerPort: 80, protocol: 'tcp' }]
          const more = { capabilities: { portMappings } }
          await tool.add(pod.netns, more)
          await using server = pod.spawn('busybox', ['httpd', '-f', '-p', '80', '-h', '/etc'])
          const answered = async () => {
            if (server.ended) throw new Error(server.text())
            const url = `http://${host.address}:8090/debian_version`
            return (await cluster.node(2).exec('wget', ['-q', '-O', '-', '-T', '2', '-t', '1', url])).stdout !== ''
          }
          await until(answered, { what: 'the host port to answer', deadlineMs: 15_000 })
          await tool.run('del', pod.netns, more)
        })
    )
  }
})
