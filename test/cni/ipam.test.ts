// Addresses: cases 40 to 51, 77 and 80 of the CNI reference, of host-local as an executable, alone and under the
// reference's bridge.
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { BIN } from '../lab/cluster.ts'
import type { Json } from '../lab/cni.ts'
import { addressesOf, CniHost, skip } from './cni-host.ts'

const DEBIAN = '/usr/lib/cni'

describe('host-local', { skip, timeout: 300_000 }, () => {
  let at: CniHost
  let networks = 0
  before(async () => {
    at = await CniHost.start()
  })
  after(() => at[Symbol.asyncDispose]())

  /** A network of its own, so that no case sees another's files. */
  function network(ipam: Json, over: Json = {}) {
    const name = `ipam${networks++}`
    const config: Json = { name, ipam: { type: 'host-local', ...ipam }, ...over }
    const asked = (id: string, ifname = 'eth0', args = '') => ({ config, id, ifname, args, netns: '/run/netns/none' })
    return {
      name,
      config,
      folder: `/var/lib/cni/networks/${name}`,
      asked,
      add: async (id: string, ifname?: string, args?: string) =>
        addressesOf(await at.ok('ADD', 'host-local', asked(id, ifname, args))).join(),
      del: (id: string, ifname?: string) => at.ok('DEL', 'host-local', asked(id, ifname)),
      refuses: (id: string, words: RegExp, args?: string) =>
        at.fails('ADD', 'host-local', asked(id, 'eth0', args), words),
      files: () => at.files(`/var/lib/cni/networks/${name}`)
    }
  }

  test('case 40: a /29 gives .2 to .6 in order and then names the range', async () => {
    const net = network({ subnet: '10.20.0.0/29' })
    for (const n of [2, 3, 4, 5, 6]) assert.equal(await net.add(`c${n}`), `10.20.0.${n}/29`)
    await net.refuses('c7', /10\.20\.0\.1-10\.20\.0\.6/)
  })

  test('case 41: a reservation is a file with id and interface, for root only, and the last address is noted', async () => {
    const net = network({ subnet: '10.20.0.0/29' })
    await net.add('cid')
    const { stdout } = await at.host.sh(
      `od -An -c ${net.folder}/10.20.0.2; stat -c %a ${net.folder}/10.20.0.2; cat ${net.folder}/last_reserved_ip.0`
    )
    assert.equal(stdout.replaceAll(/\s+/g, ' ').trim(), 'c i d \\r \\n e t h 0 600 10.20.0.2')
  })

  test('case 42: a freed address comes last', async () => {
    const net = network({ subnet: '10.20.0.0/29' })
    for (const id of ['a', 'b', 'c']) await net.add(id)
    for (const id of ['a', 'b']) await net.del(id)
    const next = []
    for (const id of ['d', 'e', 'f', 'g']) next.push(await net.add(id))
    assert.deepEqual(next, ['10.20.0.5/29', '10.20.0.6/29', '10.20.0.2/29', '10.20.0.3/29'])
  })

  test("case 43: one address from each set, the runtime's sets first, then the old-style one", async () => {
    const net = network(
      { subnet: '10.21.0.0/24', ranges: [[{ subnet: '10.22.0.0/24' }]] },
      { runtimeConfig: { ipRanges: [[{ subnet: '10.23.0.0/24' }]] } }
    )
    assert.equal(await net.add('a'), '10.23.0.2/24,10.21.0.2/24,10.22.0.2/24')
    assert.deepEqual(
      (await net.files()).filter((name) => name.startsWith('last')),
      ['last_reserved_ip.0', 'last_reserved_ip.1', 'last_reserved_ip.2']
    )
  })

  test('case 44: when the second set is exhausted, the first one gets its address back', async () => {
    const net = network({ ranges: [[{ subnet: '10.21.0.0/24' }], [{ subnet: '10.22.0.0/30' }]] })
    await net.add('a')
    await net.refuses('b', /10\.22\.0\.1-10\.22\.0\.2/)
    assert.deepEqual(await at.reserved(net.name), ['10.21.0.2', '10.22.0.2'])
  })

  test('case 45: the second range of a set is used when the first is full, and both are named when both are', async () => {
    const net = network({ ranges: [[{ subnet: '10.21.0.0/30' }, { subnet: '10.22.0.0/30' }]] })
    assert.deepEqual([await net.add('a'), await net.add('b')], ['10.21.0.2/30', '10.22.0.2/30'])
    await net.refuses('c', /10\.21\.0\.1-10\.21\.0\.2,10\.22\.0\.1-10\.22\.0\.2/)
  })

  test('case 46: an address that is asked for is given when it can be, and nothing is kept when it cannot', async () => {
    const net = network({ subnet: '10.21.0.0/24' })
    assert.equal(await net.add('a', 'eth0', 'IP=10.21.0.77/32'), '10.21.0.77/24')
    const before = await net.files()
    await net.refuses('b', /10\.21\.0\.77/, 'IP=10.21.0.77')
    await net.refuses('b', /10\.21\.0\.1 is subnet's gateway/, 'IP=10.21.0.1')
    await net.refuses('b', /10\.99\.0\.1/, 'IP=10.99.0.1')
    assert.deepEqual(await net.files(), before)
  })

  test('case 47: a second ADD names the address that is held; another interface gets one of its own', async () => {
    const net = network({ subnet: '10.21.0.0/24' })
    await net.add('a')
    await net.refuses('a', /10\.21\.0\.2 has been allocated to a/)
    assert.equal(await net.add('a', 'net1'), '10.21.0.3/24')
  })

  test('case 48: DEL frees what has the id and the interface, and very old files of the id alone', async () => {
    const net = network({ subnet: '10.21.0.0/24' })
    for (const ifname of ['eth0', 'net1']) await net.add('a', ifname)
    await net.add('b')
    await at.host.sh(`printf old > ${net.folder}/10.21.0.9`)
    await net.del('a')
    assert.deepEqual(await at.reserved(net.name), ['10.21.0.3', '10.21.0.4', '10.21.0.9'])
    await net.del('old', 'eth5')
    assert.deepEqual(await at.reserved(net.name), ['10.21.0.3', '10.21.0.4'])
  })

  for (const [ipam, words] of [
    [{ subnet: '10.21.0.7/24' }, /10\.21\.0\.7\/24/],
    [{ subnet: '10.21.0.0/31' }, /10\.21\.0\.0\/31/],
    [{ subnet: '10.21.0.0/24', rangeStart: '10.22.0.1' }, /10\.22\.0\.1/],
    [{ ranges: [[{ subnet: '10.21.0.0/24' }], [{ subnet: '10.21.0.0/25' }]] }, /overlap/],
    [{ ranges: [[{ subnet: '10.21.0.0/24' }, { subnet: 'fd00::/64' }]] }, /mixed address families/],
    [{ ranges: [] }, /ipam\.ranges/]
  ] as const) {
    test(`case 49: ${JSON.stringify(ipam)} is an error that names the value, and makes no file`, async () => {
      const net = network(ipam)
      await at.fails('ADD', 'host-local', net.asked('a'), words, 7)
      assert.deepEqual(await net.files(), [])
    })
  }

  test('case 50: DNS comes from a file of resolv.conf; a missing one is an error and reserves nothing', async () => {
    await at.host.sh(
      "printf '# note\\nnameserver 10.0.0.53\\n;x\\nsearch a.example b.example\\noptions ndots:5 edns0\\n' > /run/resolv"
    )
    const net = network({ subnet: '10.21.0.0/24', resolvConf: '/run/resolv' })
    const { dns } = await at.ok('ADD', 'host-local', net.asked('a'))
    const expected = { nameservers: ['10.0.0.53'], search: ['a.example', 'b.example'], options: ['ndots:5', 'edns0'] }
    assert.deepEqual(dns, expected)
    const other = network({ subnet: '10.21.0.0/24', resolvConf: '/run/none' })
    await other.refuses('a', /\/run\/none/)
    assert.deepEqual(await at.reserved(other.name), [])
    // The file is the caller's: a weftd in a container has other files.
    await at.host.sh("printf 'nameserver 10.0.0.54\\n' > /run/resolv-of-caller")
    const script = `mount --bind /run/resolv-of-caller /run/resolv; exec "$0"`
    const elsewhere = { ...net.asked('b'), under: `unshare -m sh -c '${script}'` }
    assert.deepEqual((await at.ok('ADD', 'host-local', elsewhere)).dns, { nameservers: ['10.0.0.54'] })
    for (const id of ['a', 'b']) await net.del(id)
  })

  test('case 51: CHECK agrees after ADD, and neither before nor after DEL', async () => {
    const net = network({ subnet: '10.21.0.0/24' })
    await at.fails('CHECK', 'host-local', net.asked('a'), /no reservation/)
    await net.add('a')
    await at.ok('CHECK', 'host-local', net.asked('a'))
    await net.del('a')
    await at.fails('CHECK', 'host-local', net.asked('a'), /no reservation/)
  })

  test('case 77: a hundred at once get a hundred addresses, and leave none', { timeout: 120_000 }, async () => {
    const net = network({ subnet: '10.21.0.0/24' })
    const ids = Array.from({ length: 100 }, (_, n) => `c${n}`)
    const given = await Promise.all(ids.map((id) => net.add(id)))
    assert.equal(new Set(given).size, 100)
    await Promise.all(ids.map((id) => net.del(id)))
    assert.deepEqual(await net.files(), ['last_reserved_ip.0', 'lock'])
  })

  test('case 80: garbage in the directory stops nobody, and nobody gets an address twice', async () => {
    const net = network({ subnet: '10.21.0.0/28' })
    await net.add('a')
    await at.host.sh(
      `cd ${net.folder}; echo '\\0?' > last_reserved_ip.0; : > 10.21.0.3; mkdir 10.21.0.4; printf 'other\\r\\neth0' > 10.21.0.5; echo x > README`
    )
    const given = []
    for (const id of ['b', 'c', 'd']) given.push(await net.add(id))
    assert.equal(new Set(given).size, 3)
    for (const taken of ['10.21.0.2/28', '10.21.0.4/28', '10.21.0.5/28']) assert.ok(!given.includes(taken), `${given}`)
  })

  test('GC frees what is not listed, and STATUS says when all is taken', async () => {
    const net = network({ subnet: '10.21.0.0/29' })
    for (const id of ['a', 'b', 'c', 'd', 'e']) await net.add(id)
    await at.fails('STATUS', 'host-local', { config: net.config }, /10\.21\.0\.1-10\.21\.0\.6/, 50)
    const listed = { 'cni.dev/valid-attachments': [{ containerID: 'b', ifname: 'eth0' }] }
    await at.ok('GC', 'host-local', { config: { ...net.config, ...listed } })
    assert.deepEqual(await at.reserved(net.name), ['10.21.0.3'])
    await at.ok('STATUS', 'host-local', { config: net.config })
  })

  test("serves Debian's bridge as its IPAM, in each of its versions", {
    skip: !existsSync(`${DEBIAN}/bridge`)
  }, async () => {
    for (const cniVersion of ['0.2.0', '0.3.1', '0.4.0', '1.0.0']) {
      const pod = await at.pod()
      const net = network({ subnet: '10.21.0.0/24' }, { cniVersion, bridge: `deb${networks}`, isGateway: true })
      // Ours are found first, but for the one that is called.
      await at.host.sh(
        `mkdir -p /run/mixed; ln -sf ${DEBIAN}/bridge /run/mixed/bridge; ln -sf ${BIN}/host-local /run/mixed/host-local`
      )
      const call = { config: net.config, pod, path: ['/run/mixed'] }
      const result = await at.ok('ADD', 'bridge', call)
      assert.match(JSON.stringify(result), /"10\.21\.0\.2\/24"/)
      assert.deepEqual(await at.reserved(net.name), ['10.21.0.2'])
      assert.equal((await pod.ping('10.21.0.1')).received, 1)
      await at.ok('DEL', 'bridge', call)
      assert.deepEqual(await at.reserved(net.name), [])
      await at.host.exec('ip', ['link', 'del', String(net.config.bridge)])
    }
  })
})

describe('static', { skip, timeout: 120_000 }, () => {
  test('gives what is written, checks the gateway, and frees nothing', async () => {
    await using at = await CniHost.start()
    const ipam = {
      type: 'static',
      addresses: [{ address: '10.21.0.5/24', gateway: '10.21.0.1' }],
      routes: [{ dst: '0.0.0.0/0' }],
      dns: { nameservers: ['10.0.0.53'] }
    }
    const call = { config: { ipam }, id: 'a', netns: '/run/netns/none' }
    const result = await at.ok('ADD', 'static', call)
    assert.deepEqual(result, {
      cniVersion: '1.1.0',
      ips: [{ address: '10.21.0.5/24', gateway: '10.21.0.1' }],
      routes: [{ dst: '0.0.0.0/0' }],
      dns: { nameservers: ['10.0.0.53'] }
    })
    await at.ok('CHECK', 'static', { ...call, config: { ipam, prevResult: result } })
    await at.fails('CHECK', 'static', call, /prevResult/)
    const moved = { ...result, ips: [{ address: '10.21.0.5/24', gateway: '10.21.0.9' }] }
    await at.fails('CHECK', 'static', { ...call, config: { ipam, prevResult: moved } }, /10\.21\.0\.9/)
    await at.ok('DEL', 'static', call)
    await at.ok('STATUS', 'static', { config: { ipam } })
  })
})
