// Third parties: IPAM plugins of others under ours (cases 12, 21, 22, 35, 79), flannel's configuration and state, and
// results against the reference's.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import { peersDirectory } from '../lab/peers.ts'
import { until } from '../lab/run.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const DEBIAN = '/usr/lib/cni'
const others = '/run/others'

/** Whether the reference's plugins of today were built here. */
function reference(): string | undefined {
  try {
    const folder = join(peersDirectory(), 'cni')
    return existsSync(join(folder, 'bridge')) ? folder : undefined
  } catch {
    return undefined
  }
}

describe('third parties', { skip, timeout: 300_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
    await at.host.sh(
      `mkdir -p ${others}; ln -s ${DEBIAN}/host-local ${others}/their-pool; ln -s ${DEBIAN}/static ${others}/their-static`
    )
  })
  after(() => at[Symbol.asyncDispose]())

  const path = [BIN, others]
  const bridge = (ipam: Json, over: Json = {}): Json => ({
    cniVersion: '1.0.0',
    bridge: 'br1',
    isDefaultGateway: true,
    ipam,
    ...over
  })
  const pool = { type: 'their-pool', subnet: '10.10.0.0/24' }
  const veths = async () => (await at.links()).filter((name) => name.startsWith('veth'))
  async function isClean(): Promise<void> {
    assert.deepEqual([await veths(), await at.reserved()], [[], []])
  }
  const nodeSubnet = async () =>
    (await at.host.sh('. /run/flannel/subnet.env; echo $FLANNEL_SUBNET')).stdout.trim().replace(/\.1\//, '.0/')
  /** A plugin of a few lines of shell, which notes each call's verb and environment. */
  const plugin = (name: string, script: string) =>
    at.host.sh(
      `cat > ${others}/${name} <<'X'\n#!/bin/sh\ncat > /run/${name}.stdin\necho "$CNI_COMMAND $TRACEPARENT" >> /run/${name}.calls\n${script}\nX\nchmod 755 ${others}/${name}; rm -f /run/${name}.calls`
    )
  const callsOf = async (name: string) =>
    (await at.host.sh(`cat /run/${name}.calls`)).stdout
      .trim()
      .split('\n')
      .map((line) => line.trim())

  for (const type of ['bridge', 'ptp']) {
    test(`Debian's host-local under another name gives ${type} its addresses, agrees to CHECK, and gets them back`, async () => {
      const pod = await at.pod()
      const config = bridge(pool)
      const result = await at.ok('ADD', type, { config, pod, path })
      const [reserved] = await at.reserved()
      assert.deepEqual(addressesOf(result), [`${reserved}/24`])
      assert.equal((await pod.ping('10.10.0.1')).received, 1)
      await at.ok('CHECK', type, { config: { ...config, prevResult: result }, pod, path })
      await at.host.sh('rm /var/lib/cni/networks/net1/10.10.0.*')
      await at.fails('CHECK', type, { config: { ...config, prevResult: result }, pod, path }, /host-local|[Aa]ddress/)
      await at.ok('DEL', type, { config, pod, path })
      await isClean()
    })
  }

  test("Debian's static gives an address without a gateway, and the bridge becomes the gateway with its first address", async () => {
    const pod = await at.pod()
    const config = bridge({ type: 'their-static', addresses: [{ address: '10.11.0.9/24' }] }, { bridge: 'br2' })
    const result = await at.ok('ADD', 'bridge', { config, pod, path })
    const [ip] = result.ips as readonly Json[]
    assert.deepEqual([ip?.address, ip?.gateway], ['10.11.0.9/24', '10.11.0.1'])
    assert.equal((await pod.ping('10.11.0.1')).received, 1)
    await at.ok('DEL', 'bridge', { config, pod, path })
  })

  test('case 12: the trace variables reach a delegate as they are, malformed or not', async () => {
    await plugin('tracer', 'echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.10.0.50/24"}]}\'')
    const call = { config: bridge({ type: 'tracer' }), pod: await at.pod(), path, env: { TRACEPARENT: 'garbage' } }
    await at.ok('ADD', 'bridge', call)
    await at.ok('DEL', 'bridge', call)
    assert.deepEqual(await callsOf('tracer'), ['ADD garbage', 'DEL garbage'])
    await isClean()
  })

  test('what an IPAM plugin prints in another version is converted, what is in none is refused', async () => {
    const call = { config: bridge({ type: 'older' }), path, pod: await at.pod() }
    for (const [printed, address] of [
      ['{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.10.0.51/24"}]}', '10.10.0.51/24'],
      ['{"cniVersion":"0.2.0","ip4":{"ip":"10.10.0.52/24","gateway":"10.10.0.1"}}', '10.10.0.52/24']
    ] as const) {
      await plugin('older', `echo '${printed}'`)
      const result = await at.ok('ADD', 'bridge', call)
      assert.deepEqual([result.cniVersion, addressesOf(result)], ['1.0.0', [address]])
      await at.ok('CHECK', 'bridge', { ...call, config: { ...call.config, prevResult: result } })
      await at.ok('DEL', 'bridge', call)
    }
    await plugin('older', 'echo \'{"cniVersion":"7.0.0"}\'')
    await at.fails('ADD', 'bridge', call, /7\.0\.0.*not known/s, 1)
    await isClean()
  })

  test('case 21: an IPAM plugin that is nowhere is named with the path, and nothing is left; DEL goes on without it', async () => {
    const call = { config: bridge({ type: 'nowhere' }), pod: await at.pod(), path }
    await at.fails('ADD', 'bridge', call, /failed to find plugin "nowhere" in path \[.*\/run\/others\]/)
    await isClean()
    const { exit, stdout, stderr } = await at.call('DEL', 'bridge', call)
    assert.deepEqual([exit, stdout], [0, ''])
    assert.match(stderr, /nowhere/)
    const status = bridge({ type: 'nowhere' }, { cniVersion: '1.1.0' })
    await at.fails('STATUS', 'bridge', { config: status, path }, /nowhere/)
  })

  test("case 22: an IPAM plugin's error is ours, unchanged", async () => {
    await plugin('failing', 'echo \'{"code":11,"msg":"no answer yet","details":"from the far end"}\'; exit 1')
    const { exit, json } = await at.call('ADD', 'bridge', {
      config: bridge({ type: 'failing' }),
      pod: await at.pod(),
      path
    })
    assert.deepEqual([exit, json.code, json.msg, json.details], [1, 11, 'no answer yet', 'from the far end'])
    await isClean()
  })

  test('what fails after the IPAM plugin makes it free its address, and the first error is reported', async () => {
    const pod = await at.pod()
    await pod.sh('ip link add eth0 type veth peer name other')
    await at.fails('ADD', 'bridge', { config: bridge(pool), pod, path }, /eth0 exists already/)
    await isClean()
  })

  test('GC and STATUS are asked of the IPAM plugin too, with the whole configuration', async () => {
    await plugin('asked', 'true')
    const config = bridge({ type: 'asked' }, { cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] })
    await at.ok('GC', 'bridge', { config, path })
    await at.ok('STATUS', 'bridge', { config, path })
    assert.deepEqual(await callsOf('asked'), ['GC', 'STATUS'])
    assert.match((await at.host.sh('cat /run/asked.stdin')).stdout, /valid-attachments/)
  })

  test('case 35: what leaves the subnet has the address of the host, and goes on having it when weftd is restarted', async () => {
    const config = bridge(
      { type: 'host-local', subnet: '10.15.0.0/24' },
      { bridge: 'br35', name: 'masq', ipMasq: true }
    )
    const [one, two] = [await at.pod(), await at.pod()]
    for (const pod of [one, two]) await at.ok('ADD', 'bridge', { config, pod })
    // The router knows no way back to 10.15.0.0/24: an answer proves the translation.
    const outside = at.cluster.lab.router
    const [first] = (await outside.ip('-4', 'route', 'get', at.host.address)) as readonly Json[]
    const beyond = String(first?.prefsrc)
    const reaches = async () => (await one.ping(beyond)).received === 1
    await until(reaches, { what: `${beyond} to answer`, deadlineMs: 5_000 })
    await at.cluster.daemon(1).restart('SIGKILL')
    await until(reaches, { what: `${beyond} to answer after a restart`, deadlineMs: 5_000 })
    assert.match(await at.ruleset(), /ip saddr 10\.15\.0\.0\/24 ip daddr != 10\.15\.0\.0\/24/)
    await at.ok('DEL', 'bridge', { config, pod: one })
    assert.match(await at.ruleset(), /10\.15\.0\.0/)
    await at.ok('DEL', 'bridge', { config, pod: two, netns: '' })
    assert.doesNotMatch(await at.ruleset(), /10\.15\.0\.0/)
  })

  test('case 79: kill -9 of the executable at any point of an ADD with a delegate, then DEL: nothing is left', {
    timeout: 120_000
  }, async () => {
    const config = bridge(pool)
    const json = JSON.stringify({ name: 'net1', type: 'bridge', ...config })
    for (let point = 0; point < 20; point++) {
      const pod = await at.pod()
      const env = {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: pod.name,
        CNI_NETNS: pod.netns,
        CNI_IFNAME: 'eth0',
        CNI_PATH: path.join(':')
      }
      const script = `timeout -s KILL ${(point + 1) / 500} ${BIN}/bridge >/dev/null 2>&1 <<'X' || true\n${json}\nX`
      await at.host.sh(script, { env })
      await at.ok('DEL', 'bridge', { config, pod, path })
      await pod[Symbol.asyncDispose]()
    }
    // A delegate is not killed with its caller and may reserve after the DEL; the next DEL or GC frees that.
    assert.deepEqual(await veths(), [])
    const pod = await at.pod()
    await at.ok('ADD', 'bridge', { config, pod, path })
    await at.ok('DEL', 'bridge', { config, pod, path })
  })

  test("an existing 10-flannel.conflist runs unchanged, and keeps what flannel's own plugin would need", async () => {
    const pod = await at.pod()
    const config = { cniVersion: '0.3.1', name: 'cbr0', delegate: { hairpinMode: true, isDefaultGateway: true } }
    const result = await at.ok('ADD', 'flannel', { config, pod })
    assert.equal(result.cniVersion, '0.3.1')
    assert.deepEqual(await at.reserved('cbr0'), [String(addressesOf(result)[0]).split('/')[0]])
    const state = JSON.parse((await at.host.sh(`cat /var/lib/cni/flannel/${pod.name}`)).stdout) as Json
    assert.deepEqual([state.type, state.name, (state.ipam as Json).type], ['bridge', 'cbr0', 'host-local'])
    assert.equal((await pod.ping(String((result.ips as readonly Json[])[0]?.gateway))).received, 1)
    await at.host.sh('mv /run/flannel/subnet.env /run/kept')
    await at.fails('ADD', 'flannel', { config, pod: await at.pod() }, /open \/run\/flannel\/subnet\.env/, 11)
    await at.ok('DEL', 'flannel', { config, pod, netns: '' })
    await at.ok('DEL', 'flannel', { config, pod })
    await at.host.sh('mv /run/kept /run/flannel/subnet.env')
    assert.deepEqual([await at.files('/var/lib/cni/flannel'), await at.reserved('cbr0'), await veths()], [[], [], []])
  })

  test('flannel hands a delegate of another type to the executable, and its result on', async () => {
    await plugin('other-main', 'echo \'{"cniVersion":"0.3.1","ips":[{"version":"4","address":"10.1.1.1/24"}]}\'')
    const config = { cniVersion: '0.3.1', name: 'cbr0', delegate: { type: 'other-main', mtu: 1234 } }
    const call = { config, pod: await at.pod(), path }
    assert.deepEqual(addressesOf(await at.ok('ADD', 'flannel', call)), ['10.1.1.1/24'])
    const handed = JSON.parse((await at.host.sh('cat /run/other-main.stdin')).stdout) as Json
    assert.deepEqual([handed.mtu, (handed.ipam as Json).ranges], [1234, [[{ subnet: await nodeSubnet() }]]])
    await at.ok('DEL', 'flannel', call)
    assert.deepEqual(await callsOf('other-main'), ['ADD', 'DEL'])
  })

  describe('with the reference plugins', { skip: reference() === undefined && 'scripts/peers was not run' }, () => {
    const theirs = [reference() ?? '']

    test("pods that flannel's plugin set up are taken down by ours, and the other way round", async () => {
      const config = { cniVersion: '0.3.1', name: 'cbr0', delegate: { isDefaultGateway: true } }
      for (const [first, then] of [
        [theirs, [BIN]],
        [[BIN], theirs]
      ] as const) {
        const pod = await at.pod()
        const address = String(addressesOf(await at.ok('ADD', 'flannel', { config, pod, path: first }))[0])
        assert.deepEqual(await at.reserved('cbr0'), [address.split('/')[0]])
        await at.ok('DEL', 'flannel', { config, pod, path: then })
        assert.deepEqual(
          [await at.files('/var/lib/cni/flannel'), await at.reserved('cbr0'), await veths()],
          [[], [], []]
        )
      }
    })

    /** A result with what is chosen at random, and what only newer releases tell, taken out. */
    const comparable = ({ dns = {}, ...result }: Json) => ({
      ...result,
      dns,
      interfaces: ((result.interfaces ?? []) as readonly Json[]).map(({ name, sandbox }) => ({
        name: String(name).replace(/^veth.*/, 'veth'),
        sandbox: sandbox === undefined ? undefined : 'inside'
      }))
    })
    const routesOf = async (pod: Awaited<ReturnType<CniHost['pod']>>) =>
      (await pod.sh('ip route; ip -6 route | sed /fe80/d')).stdout
        .replaceAll(/ +/g, ' ')
        // We say that the gateway is on the link; the reference makes such routes while the subnet's own is still
        // there.
        .replaceAll(' onlink', '')
        .split('\n')
        .map((line) => line.trim())
        .sort()
    const pooled = (...subnets: readonly string[]): Json => ({
      type: 'host-local',
      ranges: subnets.map((subnet) => [{ subnet }]),
      routes: [{ dst: '10.99.0.0/16' }, { dst: '10.98.0.0/16', gw: '10.30.0.9' }]
    })
    for (const cniVersion of ['0.2.0', '0.3.1', '1.0.0', '1.1.0']) {
      for (const [type, keys] of [
        ['bridge', { isDefaultGateway: true, ipam: pooled('10.30.0.0/24') }],
        ['bridge', { isGateway: true, ipam: pooled('10.30.0.0/24', 'fd00:30::/64') }],
        ['bridge', { ipam: pooled('10.30.0.0/24'), mtu: 1400, dns: { search: ['a.example'] } }],
        ['bridge', {}],
        ['ptp', { ipam: pooled('10.30.0.0/24') }],
        ['host-local', { ipam: pooled('10.30.0.0/24', 'fd00:30::/64') }]
      ] as const) {
        if (cniVersion === '0.2.0' && Object.keys(keys).length === 0) continue
        test(`${type} ${JSON.stringify(Object.keys(keys))} in ${cniVersion} answers and routes as the reference does`, async () => {
          const seen = []
          for (const path of [theirs, [BIN]]) {
            await at.host.sh('rm -rf /var/lib/cni/networks/same; ip link del br30 2>/dev/null || true')
            const pod = await at.pod()
            const call = { config: { cniVersion, name: 'same', bridge: 'br30', ...keys }, pod, path }
            const result = await at.ok('ADD', type, call)
            seen.push({ result: comparable(result), routes: await routesOf(pod) })
            await at.ok('DEL', type, call)
            await pod[Symbol.asyncDispose]()
          }
          assert.deepEqual(seen[1], seen[0])
        })
      }
    }
  })
})
