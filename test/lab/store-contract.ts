// Tests that every lease store must pass: acquisition, events, and what it publishes staying published.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { leaseKey } from '../../daemon/lease/lease.ts'
import type { Store } from '../../daemon/lease/store.ts'
import { until } from './run.ts'
import { CONFIG, Conditions, Watcher, wishOf } from './store-watcher.ts'

/**
 * One network of a kind of store, without configuration and leases at first; keys and values are flannel's in etcd,
 * whatever the store makes of them.
 */
export interface StoreNetwork extends AsyncDisposable {
  open(conditions: Conditions): Store | Promise<Store>
  configure(text: string): Promise<void>
  /** Sees to it that the node of `wishOf` gets these subnets where the store's side decides about that. */
  allot(key: string): Promise<void>
  /** Writes what no daemon would. */
  put(key: string, value: string): Promise<void>
  remove(key: string): Promise<void>
  /** The value that is published for these subnets. */
  valueOf(key: string): Promise<string | undefined>
}

export const peer = (publicIp: string): string =>
  JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: 'vxlan', BackendData: { VNI: 1 } })

const never = new AbortController().signal
/** A store behind a program of its own may take seconds on a busy machine. */
const slow = { deadlineMs: 30_000 }

/** Registers the tests. */
export function storeContract(make: () => Promise<StoreNetwork>): void {
  test('waits for a configuration, says so, and delivers it once it is there', async () => {
    await using network = await make()
    const conditions = new Conditions()
    await using store = await network.open(conditions)
    const waiting = store.configuration(never)
    await until(() => conditions.active.has('CONFIG_MISSING'), { what: 'the condition CONFIG_MISSING', ...slow })
    await network.configure(CONFIG)
    assert.equal(await waiting, CONFIG)
    assert.equal(conditions.active.size, 0)
  })

  test('tells of all leases first, then of each that comes, changes and goes', async () => {
    await using network = await make()
    await network.put('10.77.1.0-24', peer('192.0.2.1'))
    await using store = await network.open(new Conditions())
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the first list', ...slow })
    assert.deepEqual(watcher.keys, ['10.77.1.0-24'])
    await network.put('10.77.2.0-24', peer('192.0.2.2'))
    await until(() => watcher.keys.length === 2, { what: 'the new lease', ...slow })
    await network.put('10.77.2.0-24', peer('192.0.2.3'))
    await until(() => watcher.leases.get('10.77.2.0-24')?.publicIp[4]?.value === 0xc0000203n, {
      what: 'the changed lease',
      ...slow
    })
    await network.remove('10.77.1.0-24')
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'the lease that went', ...slow })
    assert.equal(watcher.lists, 1)
  })

  test('tells the configuration at first and whenever it changes', async () => {
    await using network = await make()
    await using store = await network.open(new Conditions())
    await using watcher = new Watcher(store)
    await until(() => watcher.configurations.length === 1, { what: 'word that there is none', ...slow })
    await network.configure(CONFIG)
    await until(() => watcher.configurations.at(-1) === CONFIG, { what: 'the configuration', ...slow })
    await network.configure('{}')
    await until(() => watcher.configurations.at(-1) === '{}', { what: 'the change', ...slow })
    assert.deepEqual(watcher.configurations, [undefined, CONFIG, '{}'])
    assert.equal(watcher.malformed.size, 0)
  })

  test('skips a lease that can not be understood, keeps what was known of it, and takes it when it is mended', async () => {
    await using network = await make()
    await network.put('10.77.1.0-24', peer('192.0.2.1'))
    await network.put('10.77.2.0-24', 'garbage')
    await using store = await network.open(new Conditions())
    await using watcher = new Watcher(store)
    await until(() => watcher.malformed.size === 1, { what: 'word of the malformed lease', ...slow })
    assert.match([...watcher.malformed.values()].join(), / is "garbage"; it must be /)
    await network.put('10.77.1.0-24', '{"PublicIP":7}')
    await until(() => watcher.malformed.has('10.77.1.0-24'), { what: 'word of a lease that became malformed', ...slow })
    assert.deepEqual(watcher.keys, ['10.77.1.0-24'])
    await network.put('10.77.2.0-24', peer('192.0.2.2'))
    await until(() => watcher.leases.has('10.77.2.0-24'), { what: 'the mended lease', ...slow })
    assert.equal(watcher.malformed.size, 1)
  })

  test('leases both families together', async () => {
    await using network = await make()
    const previous = '10.77.4.0-24&fd00:77:0:4::-64'
    await network.allot(previous)
    await using store = await network.open(new Conditions())
    const conf = '{"Network":"10.77.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:77::/48"}'
    const wish = wishOf('192.0.2.1', { conf, previous })
    const publicIp = { ...wish.publicIp, ...wishOf('2001:db8::1').publicIp }
    const lease = await store.acquire({ ...wish, publicIp }, never)
    assert.equal(leaseKey(lease), previous)
    assert.match(String(await network.valueOf(previous)), /"PublicIP":"192\.0\.2\.1","PublicIPv6":"2001:db8::1"/)
  })

  test('publishes in flannel’s words, keeps the subnet over a restart, and publishes again what somebody garbled', async () => {
    await using network = await make()
    const key = '10.77.4.0-24'
    await network.allot(key)
    const conditions = new Conditions()
    const wish = wishOf('192.0.2.1', { previous: key })
    const value =
      '{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}'
    for (const _ of ['first', 'again']) {
      await using store = await network.open(conditions)
      assert.equal(leaseKey(await store.acquire(wish, never)), key)
      assert.equal(await network.valueOf(key), value)
    }
    await using store = await network.open(conditions)
    await using watcher = new Watcher(store)
    await store.acquire(wish, never)
    await until(() => watcher.keys.join() === key, { what: 'our own lease in the watch', ...slow })
    await network.put(key, 'garbage')
    await until(async () => (await network.valueOf(key)) === value, { what: 'our lease, published again', ...slow })
    assert.deepEqual(watcher.keys, [key])
    assert.equal(conditions.raised.has('LEASE_LOST'), false)
  })
}
