// Membership over a real lease database and a kernel that is a Map: what it resumes, keeps and reports when the store
// and the host change.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { leaseKey, parseLease } from '../../../daemon/lease/lease.ts'
import type { LeaseRequest, Store } from '../../../daemon/lease/store.ts'
import { type KernelObject, keyOf } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { until } from '../until.ts'
import { HOST, Scene, sqlOf } from './membership-scene.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const CONF = '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}'
const ODD = CONF.replace('"Backend"', '"SubnetMinn":"10.244.9.0","Backend"')
const peer = (publicIp: string) => JSON.stringify({ PublicIP: publicIp, PublicIPv6: null, BackendType: 'host-gw' })

/**
 * A store that does not answer until `speak`; with `text` it has that configuration from the start, as the Kubernetes
 * store does.
 */
class Silent implements Store {
  readonly type: string
  readonly configurationPlace: string
  readonly #store: Store
  readonly #spoken = Promise.withResolvers<void>()

  readonly #text: string | undefined

  constructor(store: Store, text?: string) {
    this.#store = store
    this.#text = text
    this.type = store.type
    this.configurationPlace = store.configurationPlace
  }

  speak(): void {
    this.#spoken.resolve()
  }

  async configuration(signal: AbortSignal): Promise<string> {
    if (this.#text !== undefined) return this.#text
    await this.#spoken.promise
    return this.#store.configuration(signal)
  }

  async acquire(request: LeaseRequest, signal: AbortSignal) {
    await this.#spoken.promise
    return this.#store.acquire(request, signal)
  }

  reconnect(): void {}

  async *watch(signal: AbortSignal) {
    await this.#spoken.promise
    yield* this.#store.watch(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** A daemon that held a lease and ended; and the next one, whose store is silent. */
async function restarted(
  text?: string,
  before = CONF
): Promise<{ readonly scene: Scene; readonly store: Silent; readonly key: string }> {
  const first = new Scene()
  first.file.configure(before)
  const { place } = await first.join()
  await first.stop()
  const scene = new Scene(first.folder)
  return { scene, store: new Silent(scene.file, text), key: leaseKey(place?.lease ?? assert.fail('no lease')) }
}

test('a configuration that would cut pods off is not taken, and reported until it is as before', async () => {
  await using scene = new Scene()
  scene.file.configure(CONF)
  await scene.join()
  scene.file.configure(CONF.replace('10.244', '10.9'))
  const said = await until(() => scene.detail('CONFIG_CHANGED'), 'the condition')
  assert.match(
    said,
    /leases\.db: Network is 10\.244\.0\.0\/16 here and 10\.9\.0\.0\/16 there: not taken, since this node's subnet 10\.244\.\d+\.0-24 would not fit any more, and 0 pods would be cut off$/
  )
  const cureOf = () => scene.health.active().find(({ code }) => code === 'CONFIG_CHANGED')?.cure ?? ''
  assert.match(
    cureOf(),
    /^restore the one in use before any restart: write \{"Network":"10\.244.*drain each node first/
  )
  assert.equal(scene.health.blocking('ready'), undefined)
  // What a starting weftd would refuse, for whatever reason, is no reason to restart one.
  for (const [text, reason] of [
    ['{"Network":7}', /not valid: Network is 7/],
    ['{"Network":"10.244.0.0/16","Backend":{"Type":"quantum"}}', /not valid: .*quantum/],
    ['{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":9000}}', /not valid: .*9000/]
  ] as const) {
    scene.file.configure(text)
    await until(() => reason.test(scene.detail('CONFIG_CHANGED') ?? ''), `${text} to be reported`)
    const { cure = '' } = scene.health.active().find(({ code }) => code === 'CONFIG_CHANGED') ?? {}
    assert.match(cure, /^correct it, or write the one in use, \{"Network":"10\.244\.0\.0\/16".*\}, to .*leases\.db;/)
    assert.match(cure, /do not restart weftd before/)
    assert.equal(scene.health.blocking('ready'), undefined)
  }
  scene.file.configure(`  ${CONF}`)
  await until(() => scene.detail('CONFIG_CHANGED') === undefined, 'the end of the condition')
})

test('a misspelled key of the configuration is reported and does not prevent serving', async () => {
  await using scene = new Scene()
  scene.file.configure(ODD)
  await scene.join()
  assert.match(
    scene.detail('CONFIG_KEY_UNKNOWN') ?? '',
    /leases\.db: SubnetMinn is no key of the network; the nearest is SubnetMin$/
  )
  const cure = scene.health.active().find(({ code }) => code === 'CONFIG_KEY_UNKNOWN')?.cure
  assert.match(cure ?? '', /^correct or remove SubnetMinn in the lease file .*leases\.db$/)
  assert.equal(scene.health.blocking('ready'), undefined)
})

test('an interface that goes down is reported while it lasts, and nothing else changes', async () => {
  await using scene = new Scene()
  scene.file.configure(CONF)
  const network = await scene.join()
  const [eth0] = HOST
  assert.ok(eth0)
  scene.kernel.change({ ...eth0, carrier: false } as KernelObject, keyOf(eth0))
  await until(() => scene.detail('LINK_DOWN') === 'eth0 has no carrier', 'the condition')
  assert.equal(scene.health.blocking('add'), undefined)
  assert.equal(network.place?.node.device, 'eth0')
  scene.kernel.change({ ...eth0, carrier: true } as KernelObject, keyOf(eth0))
  await until(() => scene.detail('LINK_DOWN') === undefined, 'the end of the condition')
})

test('an MTU above that of the interface prevents joining, with the range in the condition, until somebody corrects it', async () => {
  await using scene = new Scene()
  const conf = (mtu: number) => `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":${mtu}}}`
  scene.file.configure(conf(9000))
  const joined = scene.join()
  const said = await until(() => scene.detail('CONFIG_INVALID'), 'the condition')
  assert.match(
    said,
    /^Backend.MTU is 9000; it must be a whole number from 118 to 1500, which is what eth0 carries, or 0 for that \(in the lease file .*leases\.db\)$/
  )
  assert.equal(scene.health.blocking('add')?.cure, 'correct Backend.MTU')
  scene.file.configure(conf(1400))
  const network = await joined
  assert.equal(network.place?.mtu, 1350)
  assert.equal(scene.detail('CONFIG_INVALID'), undefined)
})

test('a corrected configuration is no longer reported as invalid while there is no interface yet', async () => {
  await using scene = new Scene()
  const [eth0] = HOST
  assert.ok(eth0)
  scene.kernel.change({ ...eth0, up: false } as KernelObject, keyOf(eth0))
  scene.file.configure('{"Network":7}')
  const joined = scene.join()
  await until(() => scene.detail('CONFIG_INVALID'), 'the condition')
  scene.file.configure(CONF)
  await until(() => scene.detail('NO_INTERFACE'), 'the wait for an interface')
  assert.equal(scene.detail('CONFIG_INVALID'), undefined)
  scene.kernel.change(eth0, keyOf(eth0))
  await joined
})

test('an interface MTU that drops below the configured one is reported while it lasts, and everything is kept', async () => {
  await using scene = new Scene()
  scene.file.configure('{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw","MTU":1500}}')
  const network = await scene.join()
  const [eth0] = HOST
  assert.ok(eth0)
  scene.kernel.change({ ...eth0, mtu: 1400 } as KernelObject, keyOf(eth0))
  await until(() => /from 68 to 1400/.test(scene.detail('CONFIG_INVALID') ?? ''), 'the condition')
  assert.equal(network.place?.mtu, 1500)
  scene.kernel.change(eth0, keyOf(eth0))
  await until(() => scene.detail('CONFIG_INVALID') === undefined, 'the end of the condition')
})

for (const [which, text, before] of [
  ['the store', undefined, CONF],
  ['a store whose configuration is a file', CONF, CONF],
  ['such a store with an unknown key in its file', ODD, ODD]
] as const)
  test(`while ${which} does not answer the lease of an earlier weftd is used, and the store confirms it later`, async () => {
    const { scene, store, key } = await restarted(text, before)
    await using _ = scene
    const network = await scene.join({ store })
    assert.equal(leaseKey(network.place?.lease ?? assert.fail('no place')), key)
    assert.equal(network.place?.isConfirmed, false)
    assert.equal(scene.health.blocking('add'), undefined)
    store.speak()
    await until(() => network.place?.isConfirmed, 'the store to confirm')
    assert.equal(leaseKey(network.place?.lease ?? assert.fail('no place')), key)
  })

test("a cluster's first podCIDR, which is below SubnetMin, is remembered like any other", async () => {
  await using scene = new Scene()
  const lease = parseLease('10.244.0.0-24', peer('192.0.2.1'))
  scene.leaseFile.write({ text: CONF, lease })
  const network = await scene.join({ store: new Silent(scene.file, CONF) })
  assert.deepEqual(network.place?.lease.subnet, lease.subnet)
})

test('a remembered lease is not used when the configuration has changed', async () => {
  const { scene, store } = await restarted(CONF.replace('10.244', '10.9'))
  await using _ = scene
  const joining = scene.join({ store })
  await until(() => /asking/.test(scene.detail('STARTING') ?? ''), 'the request for a lease')
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.notEqual(scene.health.blocking('add'), undefined)
  store.speak()
  const network = await joining
  assert.match(leaseKey(network.place?.lease ?? assert.fail('no place')), /^10\.9\./)
})

test('when the store then says that another node has the subnet, LEASE_LOST names it', async () => {
  const { scene, store, key } = await restarted()
  await using _ = scene
  const network = await scene.join({ store })
  sqlOf(scene, `UPDATE lease SET value = '${peer('192.0.2.9')}'`)
  store.speak()
  const said = await until(() => scene.detail('LEASE_LOST'), 'the condition')
  assert.match(said, new RegExp(`${key} was ours, but in .* is leased to 192\\.0\\.2\\.9`))
  assert.equal(leaseKey(network.place?.lease ?? assert.fail('no place')), key)
  sqlOf(scene, 'DELETE FROM lease')
  await until(
    () => network.place?.isConfirmed && scene.detail('LEASE_LOST') === undefined,
    'the subnet to be ours again'
  )
})

for (const [what, spoil] of [
  ['for another address', { interfaceOptions: { ifaces: ['eth1'], ifaceRegexes: [], publicIp: {} } }],
  ['when a store answers that holds no configuration', {}]
] as const)
  test(`a remembered lease is not used ${what}`, async () => {
    const { scene, store } = await restarted()
    await using _ = scene
    const isEmpty = !('interfaceOptions' in spoil)
    if (isEmpty) {
      sqlOf(scene, 'DELETE FROM config')
      store.speak()
    } else {
      const eth1: KernelObject = { kind: 'link', name: 'eth1', up: true, mtu: 1500, form: { type: 'other', of: '' } }
      for (const object of [eth1, { ...HOST[1], device: 'eth1', prefix: prefix('198.51.100.1/24') } as KernelObject])
        scene.kernel.objects.set(keyOf(object), object)
    }
    const joining = scene.join({ store, patienceMs: 200, ...spoil })
    joining.catch(() => undefined)
    if (isEmpty) await until(() => scene.detail('CONFIG_MISSING'), 'the condition')
    await new Promise((resolve) => setTimeout(resolve, 400))
    assert.equal(scene.health.blocking('add') === undefined, false)
    if (isEmpty) scene.file.configure(CONF)
    store.speak()
    await joining
    assert.equal(scene.health.blocking('add'), undefined)
  })

test('the other nodes are reachable although the callback for a new place fails', async () => {
  await using scene = new Scene()
  scene.file.configure(CONF)
  sqlOf(scene, `INSERT INTO lease (key, value, revision) VALUES ('10.244.99.0-24', '${peer('192.0.2.9')}', 1)`)
  const joining = scene.join({ placed: () => Promise.reject(new Error('no space left')) })
  await assert.rejects(joining, /no space left/)
  await until(() => [...scene.kernel.objects.keys()].some((key) => key.includes('10.244.99.0/24')), 'its route')
})

test('a weftd that remembers no lease publishes the address that the store has for its name', async () => {
  await using scene = new Scene(undefined, {
    host: [...HOST, { kind: 'address', device: 'eth0', prefix: prefix('198.51.100.1/24') }]
  })
  scene.file.configure(CONF)
  sqlOf(
    scene,
    `INSERT INTO lease (key, value, node, revision) VALUES
      ('10.244.7.0-24', '${peer('198.51.100.1')}', 'node-1', 1), ('10.244.8.0-24', '${peer('192.0.2.1')}', 'other', 2)`
  )
  const { place } = await scene.join()
  assert.deepEqual([place && leaseKey(place.lease), place?.lease.publicIp[4]?.value], ['10.244.7.0-24', 0xc6336401n])
  await until(() => scene.detail('PUBLIC_IP_CONFLICT') === undefined, 'no conflict')
})

test('two nodes of a lease file with one address hold a lease each, and that is reported', async () => {
  await using scene = new Scene()
  scene.file.configure(CONF)
  sqlOf(
    scene,
    `INSERT INTO lease (key, value, node, revision) VALUES ('10.244.8.0-24', '${peer('192.0.2.1')}', 'other', 2)`
  )
  const { place } = await scene.join()
  assert.notEqual(place && leaseKey(place.lease), '10.244.8.0-24')
  assert.match(
    await until(() => scene.detail('PUBLIC_IP_CONFLICT'), 'the condition'),
    /192\.0\.2\.1 .*other.*node-1|node-1.*other/
  )
})
