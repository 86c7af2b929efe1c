// Many pods at once through real processes: nothing is given twice, nothing stays, and what runs out comes back when it
// is freed.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { Cluster } from '../lab/cluster.ts'
import { HeapWatch } from '../lab/heap.ts'
import { descriptors, recordOf } from '../lab/host-record.ts'
import { CniHost, skip } from './cni-host.ts'
import { addressIn, inParallel, isAsBefore, makePods, netnsOf, ok, removePods, start } from './many.ts'

const PODS = 500
const TOGETHER = 100
/**
 * What 1,000 calls may add to the daemon's heap once it has done as many. A leak of one pod's objects (some 20 KiB)
 * adds ten; two runs added 0.4 and 0.5.
 */
const MOST_GROWTH_MIB = 2

const named = (prefix: string, count: number): readonly string[] =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}`)

describe('load', { skip }, () => {
  test('500 ADDs and 500 DELs, 100 at a time, twice: no address twice, nothing left in the host or in weftd', async () => {
    const network = { Network: '10.244.0.0/16', SubnetLen: 21, Backend: { Type: 'vxlan' } }
    await using cluster = await Cluster.start({ hosts: [1], network, start: false })
    await using heap = await HeapWatch.create(cluster.node(1))
    await cluster.join(cluster.node(1), { env: { NODE_OPTIONS: heap.nodeOptions } })
    const [host, { pid }] = [cluster.node(1), cluster.daemon(1)]
    const ids = named('load', PODS)
    await makePods(host, ids)
    // The bridge comes with the first pod and stays.
    await ok(host, { verb: 'ADD', id: 'load0' })
    await ok(host, { verb: 'DEL', id: 'load0' })
    const record = await recordOf(host, { networks: false })
    const open = await descriptors(pid)
    const reachable: number[] = []
    for (let round = 0; round < 2; round++) {
      const results = await inParallel(ids, TOGETHER, (id) => ok(host, { verb: 'ADD', id }))
      assert.equal(new Set(results.map(addressIn)).size, PODS)
      // The host's own eth0 is one too.
      assert.equal((await host.ip('link', 'show', 'type', 'veth')).length, PODS + 1)
      await inParallel(ids, TOGETHER, (id) => ok(host, { verb: 'DEL', id }))
      await isAsBefore(host, record, { pid, open })
      reachable.push(await heap.reachableMiB(pid))
    }
    const [first = 0, second = 0] = reachable
    assert.ok(second - first < MOST_GROWTH_MIB, `weftd's heap grew from ${first} to ${second} MiB`)
    await removePods(host, ids)
  })

  test('case 77: 100 IPAM ADDs at once get 100 addresses, and 100 DELs leave the lock and the last address', async () => {
    await using cni = await CniHost.start()
    const config = { ipam: { type: 'host-local', subnet: '10.20.0.0/24' } }
    const ids = named('ipam', 100)
    const call = (verb: 'ADD' | 'DEL', id: string) =>
      ok(cni.host, { verb, id, type: 'host-local', config, netns: '/run/netns/none' })
    const results = await inParallel(ids, ids.length, (id) => call('ADD', id))
    assert.equal(new Set(results.map(addressIn)).size, ids.length)
    assert.equal((await cni.reserved()).length, ids.length)
    await inParallel(ids, ids.length, (id) => call('DEL', id))
    assert.deepEqual(await cni.files('/var/lib/cni/networks/net1'), ['last_reserved_ip.0', 'lock'])
  })

  test('case 78: 50 ADDs at once on a bridge that is not there, then 50 DELs mixed with 50 ADDs', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const config = { bridge: 'br78' }
    const [first, second] = [named('a', 50), named('b', 50)]
    await makePods(host, [...first, ...second])
    const before = await Promise.all(first.map((id) => ok(host, { verb: 'ADD', id, config })))
    const after = (
      await Promise.all(
        first.flatMap((id, at) => [
          ok(host, { verb: 'DEL', id, config }),
          ok(host, { verb: 'ADD', id: second[at] ?? '', config })
        ])
      )
    ).filter((result) => 'ips' in result)
    for (const results of [before, after]) assert.equal(new Set(results.map(addressIn)).size, 50)
    const links = await cni.links()
    assert.deepEqual(
      [
        links.filter((name) => name === 'br78').length,
        links.filter((name) => name.startsWith('veth')).length,
        links.length
      ],
      [1, 50, 51]
    )
    const addresses = (await host.ip('-4', 'addr', 'show', 'dev', 'br78')) as readonly {
      readonly addr_info: readonly unknown[]
    }[]
    assert.equal(addresses[0]?.addr_info.length, 1)
    assert.equal((await cni.reserved()).length, 50)
    await Promise.all(second.map((id) => ok(host, { verb: 'DEL', id, config })))
    assert.deepEqual([await cni.links(), await cni.reserved()], [['br78'], []])
  })

  test('case 67: loopback and weft on one namespace at the same time, 50 rounds', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const ids = named('lo', 50)
    await makePods(host, ids)
    for (const id of ids) {
      await Promise.all([
        ok(host, { verb: 'ADD', id }),
        ok(host, {
          verb: 'ADD',
          id,
          type: 'loopback',
          ifname: 'lo',
          config: { cniVersion: '0.3.1', name: 'cni-loopback' }
        })
      ])
      const { stdout } = await host.exec('nsenter', [`--net=${netnsOf(id)}`, 'ip', '-br', 'link'])
      assert.match(stdout, /^lo +UNKNOWN/m)
      assert.match(stdout, /^eth0@\S+ +UP/m)
    }
    for (const id of ids) {
      await Promise.all([
        ok(host, { verb: 'DEL', id }),
        ok(host, {
          verb: 'DEL',
          id,
          type: 'loopback',
          ifname: 'lo',
          config: { cniVersion: '0.3.1', name: 'cni-loopback' }
        })
      ])
    }
    assert.deepEqual([await cni.links(), await cni.reserved()], [['cni0'], []])
  })
})

describe('an exhausted pool', { skip }, () => {
  test('of a configuration fails with its range, directory and holders, and gives again what was freed', async () => {
    await using cni = await CniHost.start()
    const { host } = cni
    const config = { ipam: { ranges: [[{ subnet: '10.20.0.0/29' }]] } }
    const ids = named('full', 7)
    await makePods(host, ids)
    const answers = await Promise.all(ids.map((id) => start(host, { verb: 'ADD', id, config }).ended))
    const failed = answers.filter(({ exit }) => exit !== 0)
    assert.equal(failed.length, 2)
    const holders = answers.flatMap(({ exit, json }, n) => (exit === 0 ? [`${addressIn(json)} ${ids[n]} eth0`] : []))
    for (const { json } of failed) {
      assert.equal(json.code, 11)
      assert.match(String(json.msg), /10\.20\.0\.1-10\.20\.0\.6.*\/var\/lib\/cni\/networks\/net1/)
      assert.deepEqual(
        holders.filter((holder) => json.msg?.includes(holder) !== true),
        [],
        `holders that are not named: ${json.msg}`
      )
    }
    assert.equal((await cni.links()).filter((name) => name.startsWith('veth')).length, 5)
    const status = await start(host, { verb: 'STATUS', id: '', config }).ended
    assert.equal(status.json.code, 50)
    const [held = '', waits = ''] = [0, 1].map(
      (wanted) => ids[answers.findIndex(({ exit }) => (exit === 0 ? 0 : 1) === wanted)]
    )
    const address = addressIn(answers[ids.indexOf(held)]?.json ?? {})
    await ok(host, { verb: 'DEL', id: held, config })
    assert.equal(addressIn(await ok(host, { verb: 'ADD', id: waits, config })), address)
    for (const id of ids) await ok(host, { verb: 'DEL', id, config })
    assert.deepEqual(await cni.reserved(), [])
  })

  test("of the node's subnet is a condition of the node until an address is free again", async () => {
    const network = { Network: '10.244.0.0/24', SubnetLen: 29, Backend: { Type: 'vxlan' } }
    await using cluster = await Cluster.start({ hosts: [1], network })
    const host = cluster.node(1)
    const ids = named('node', 6)
    await makePods(host, ids)
    for (const id of ids.slice(0, 5)) await ok(host, { verb: 'ADD', id })
    const last = ids[5] ?? ''
    const refused = await start(host, { verb: 'ADD', id: last }).ended
    assert.deepEqual([refused.exit, refused.json.code], [1, 11], refused.stdout)
    assert.match((await cluster.daemon(1).readyz()).body, /POOL_EXHAUSTED|addresses/i)
    await ok(host, { verb: 'DEL', id: 'node2' })
    await ok(host, { verb: 'STATUS', id: '' })
    await ok(host, { verb: 'ADD', id: last })
    for (const id of ids) await ok(host, { verb: 'DEL', id })
    assert.doesNotMatch(await recordOf(host), /^veth|networks\/net1\/10\./m)
  })
})
