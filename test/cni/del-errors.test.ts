// A DEL that fails must fail for the runtime too: whatever the cause, the error has none of the words that containerd
// takes for "already deleted".
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import { type Asked, CniHost, skip } from './cni-host.ts'

const SWALLOWED = /not found|no such file or directory/i
const others = '/run/others'
const path = [BIN, others]

describe('an error of DEL', { skip, timeout: 300_000 }, () => {
  let at: CniHost
  before(async () => {
    at = await CniHost.start()
    await at.host.sh(`mkdir -p ${others}`)
  })
  after(() => at?.[Symbol.asyncDispose]())

  /** A DEL that fails, for the reason that matches, in words that reach the runtime. */
  async function failsAudibly(type: string, asked: Asked, reason: RegExp): Promise<void> {
    const { exit, stdout, json } = await at.call('DEL', type, { path, ...asked })
    assert.equal(exit, 1, `DEL of ${type} succeeded`)
    const said = `${json.msg}; ${json.details ?? ''}`
    assert.match(said, reason)
    assert.doesNotMatch(said, SWALLOWED, stdout)
  }

  /** A program of somebody else in the host, in CNI_PATH. */
  const program = (name: string, text: string) =>
    at.host.sh(`cat > ${others}/${name} <<'X'\n${text}\nX\nchmod 755 ${others}/${name}`)
  const behind = (type: string): Json => ({ cniVersion: '1.0.0', bridge: 'br1', ipam: { type } })

  test('that quotes what the caller has written', async () => {
    const id = 'quoted'
    await failsAudibly('weft', { id: 'not found' }, /CNI_CONTAINERID is "missing"/)
    await failsAudibly('bridge', { id, ifname: 'Not Found/0' }, /"missing\/0"/)
    await failsAudibly('weft', { id, config: 'not found' }, /not a JSON document/)
    await failsAudibly(
      'portmap',
      { id, config: { name: 'no such file or directory' } },
      /invalid characters in network/
    )
    await failsAudibly('weft', { id, config: { cniVersion: 'not found' } }, /incompatible CNI versions/)
    await failsAudibly('flannel', { id, config: { dataDir: 'not found' } }, /dataDir: "missing"/)
    await failsAudibly('weft', { id, env: { CNI_ARGS: '' }, config: { cniVersion: 'İİİİİİİnot found' } }, /missing/)
  })

  test('that tells what a third party says, or that it cannot be run', async () => {
    const words = `echo '{"code":7,"msg":"link not found","details":"open /x: No such file or directory"}'; exit 1`
    await program('telling', `#!/bin/sh\n${words}`)
    await program('silent', '#!/bin/sh\necho not found; echo no such file or directory >&2; exit 3')
    await program('homeless', '#!/nowhere/interpreter')
    await program('killed', '#!/bin/sh\nkill -9 $$')
    const call = (type: string): Asked => ({ id: 'third', config: behind(type) })
    // To ADD the same is said as it is.
    await at.fails('ADD', 'bridge', { ...call('telling'), pod: await at.pod(), path }, /link not found/, 7)
    await failsAudibly('bridge', call('telling'), /link missing; open \/x: it does not exist/)
    await failsAudibly('bridge', call('silent'), /ended with exit status 3/)
    await failsAudibly('bridge', call('homeless'), /homeless cannot be run/)
    await failsAudibly('bridge', call('killed'), /killed by signal 9/)
    const elsewhere = { name: 'other', delegate: { type: 'not found' } }
    await failsAudibly('flannel', { id: 'third', config: elsewhere }, /failed to find plugin "missing"/)
  })

  test('whose state cannot be read or written', async () => {
    const pod = await at.pod()
    await at.ok('ADD', 'weft', { pod })
    await at.host.sh('mount -o remount,ro /var/lib/cni')
    await failsAudibly('weft', { pod }, /EROFS/)
    await at.host.sh('mount -o remount,rw /var/lib/cni')
    await at.ok('DEL', 'weft', { pod })
    // A folder in the place of the file that is locked, beside a reservation that is to go.
    await at.host.sh("mkdir -p '/run/not found/net1/lock'; printf 'state\\r\\neth0' > '/run/not found/net1/10.9.0.9'")
    await failsAudibly('weft', { id: 'state', config: { ipam: { dataDir: '/run/not found' } } }, /\/run\/missing\/net1/)
    // The settings that tuning keeps are a folder that is not empty.
    await at.host.sh('mkdir -p /run/cni/tuning/state_eth0.json/x')
    await failsAudibly('tuning', { id: 'state' }, /state_eth0\.json/)
  })

  test('of one address does not keep the others, of DEL and of GC, alone and under a plugin; each is named', async () => {
    await at.host.sh('mkdir -p /run/pools')
    const ipam = { dataDir: '/run/pools', ranges: [[{ subnet: '10.71.0.0/24' }], [{ subnet: '10.72.0.0/24' }]] }
    const alone = { config: { cniVersion: '1.1.0', name: 'pools', ipam: { type: 'host-local', ...ipam } } }
    const pinned = (file: string, verb: '--bind' | '-u') =>
      at.host.sh(verb === '-u' ? `umount ${file}` : `mount --bind ${file} ${file}`)
    const reserved = () => at.reserved('pools', '/run/pools')
    for (const type of ['host-local', 'weft']) {
      for (const verb of ['DEL', 'GC']) {
        for (const id of verb === 'GC' ? ['a', 'b', 'c'] : ['a'])
          await at.ok('ADD', 'host-local', { ...alone, id, netns: '/x' })
        const [first = '', ...others] = await reserved()
        await pinned(`/run/pools/pools/${first}`, '--bind')
        const call = type === 'weft' ? { config: { cniVersion: '1.1.0', name: 'pools', ipam } } : alone
        const { exit, json } = await at.call(verb, type, { ...call, id: 'a' })
        assert.deepEqual([exit, json.code], [1, 11])
        assert.match(`${json.msg}`, new RegExp(`EBUSY.*${first}.*Cure: make /run/pools/pools`))
        assert.ok(others.length > 0)
        assert.deepEqual(await reserved(), [first])
        await pinned(`/run/pools/pools/${first}`, '-u')
        await at.ok(verb, type, { ...call, id: 'a' })
        assert.deepEqual(await reserved(), [])
      }
    }
  })

  test('that the kernel makes', async () => {
    const pod = await at.pod()
    await at.ok('ADD', 'weft', { pod, config: { name: 'refused' } })
    // A reservation of an interface that no program can delete.
    const folder = '/var/lib/cni/networks/refused'
    const address = (await at.reserved('refused'))[0] ?? assert.fail('no reservation')
    await at.host.sh(`cd ${folder}; printf 'unremovable\\r\\nlo' > ${address.replace(/\d+$/, '200')}`)
    const lo: Asked = { pod, id: 'unremovable', ifname: 'lo', config: { name: 'refused' } }
    await failsAudibly('weft', lo, /\blo\b.*(EOPNOTSUPP|not supported)/)
    await at.ok('DEL', 'weft', { pod, config: { name: 'refused' } })
  })

  test('in a namespace that is none does no harm: DEL frees all the same', async () => {
    for (const netns of ['/run/not found', '/run/netns/no such file or directory', '/dev/null', '/proc/self/ns/mnt']) {
      const pod = await at.pod()
      await at.ok('ADD', 'weft', { pod })
      await at.ok('DEL', 'weft', { id: pod.name, netns })
      assert.deepEqual(await at.reserved(), [])
    }
  })

  test('never comes of a namespace that goes away meanwhile, whichever plugin is called', async () => {
    const round = async (n: number) => {
      const pod = await at.pod()
      const ipam: Json = { type: 'host-local', ranges: [[{ subnet: '10.73.0.0/24' }]] }
      const main: Json = { name: 'race', bridge: 'race0', isDefaultGateway: true, ipMasq: true, ipam }
      const runtimeConfig = { portMappings: [{ hostPort: 20_000 + n, containerPort: 80, protocol: 'tcp' }] }
      const limits = { ingressRate: 8_000_000, ingressBurst: 800_000, egressRate: 8_000_000, egressBurst: 800_000 }
      const chain: readonly (readonly [string, Json])[] = [
        ['loopback', { name: 'race' }],
        n % 3 === 2 ? ['weft', { ...main, ipam: { ranges: ipam.ranges } }] : [n % 3 === 0 ? 'bridge' : 'ptp', main],
        ['tuning', { name: 'race', mtu: 1400, sysctl: { 'net.core.somaxconn': '500' } }],
        ['bandwidth', { name: 'race', ...limits }],
        ['firewall', { name: 'race', ingressPolicy: n % 3 === 0 ? 'same-bridge' : 'open' }],
        ['portmap', { name: 'race', runtimeConfig }]
      ]
      let prevResult: Json | undefined
      for (const [type, keys] of chain) {
        const result = await at.ok('ADD', type, { pod, config: { ...keys, ...(prevResult && { prevResult }) } })
        if (type !== 'loopback') prevResult = result
      }
      return { pod, calls: chain.map(([type, keys]) => [type, { ...keys, prevResult }] as const).reverse() }
    }
    const pods = await Promise.all(Array.from({ length: 24 }, (_, n) => round(n)))
    const gone = pods.map(({ pod }) => `ip -n ${pod.name} link del eth0 || true; ip netns del ${pod.name}`).join('\n')
    await Promise.all([
      at.host.sh(gone),
      ...pods.map(async ({ pod, calls }) => {
        for (const [type, config] of calls) await at.ok('DEL', type, { pod, config: config as Json })
      })
    ])
    assert.deepEqual(await at.reserved('race'), [])
    assert.doesNotMatch(await at.ruleset(), /10\.73\.0\./)
  })

  test('that weftd cannot be reached', async () => {
    const daemon = at.cluster.daemon(1)
    const soon = { WEFTD_DEADLINE_MS: '300' }
    daemon.program.kill('SIGSTOP')
    try {
      await failsAudibly('weft', { id: 'alone', env: soon }, /did not answer/)
    } finally {
      daemon.program.kill('SIGCONT')
    }
    await daemon.kill('SIGKILL')
    await failsAudibly('weft', { id: 'alone' }, /no process listens on/)
    await at.host.sh('rm /run/weft/weftd.sock')
    await failsAudibly('weft', { id: 'alone' }, /there is no socket/)
    await failsAudibly(
      'weft',
      { id: 'alone', env: { WEFTD_SOCKET: '/run/not found/s' } },
      /there is no socket \/run\/missing\/s/
    )
    await at.host.sh('mkdir /run/weft/weftd.sock')
    await failsAudibly('weft', { id: 'alone' }, /weftd/)
    await at.host.sh('rmdir /run/weft/weftd.sock')
    daemon.launch()
    await daemon.ready()
    await at.ok('DEL', 'weft', { id: 'alone' })
  })
})
