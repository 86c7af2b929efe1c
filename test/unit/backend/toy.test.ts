// A backend is one file and one line: a toy goes from the configuration to the kernel and back without a change in any
// other room.
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { BACKENDS, type Registry, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { leaseKey } from '../../../daemon/lease/lease.ts'
import { followFeatures } from '../../../daemon/node/required-features.ts'
import { type KernelObject, type Key, keyOf, type Link } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { formatIp, parsePrefix, perFamily } from '../../../ipam/address.ts'
import { backendTable } from '../../../scripts/docs/configuration.ts'
import { HOST, Scene, sqlOf } from '../node/membership-scene.ts'
import { until } from '../until.ts'
import { toy } from './toy.ts'

const withToy = registry([...BACKENDS, toy])
const CONF = '{"Network":"10.244.0.0/16","Backend":{"Type":"toy","Colour":7}}'
const HOST_GW = '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const link = (name: string, over: Partial<Link> = {}): Link => ({
  ...{ kind: 'link', name, up: true, form: { type: 'other', of: 'toy' } },
  ...over
})
const routeOn = (device: string, destination: string): KernelObject => ({
  ...({ kind: 'route', table: 254, metric: 0, type: 'unicast', protocol: 3 } as const),
  ...{ device, destination: prefix(destination) }
})

const scene = (conf: string, host: readonly KernelObject[] = HOST, folder?: string): Scene => {
  const made = new Scene(folder, { registry: withToy, host })
  made.file.configure(conf)
  return made
}

/** Another node's lease. */
const lease = (at: Scene, n: number, token: unknown, ip = `192.0.2.${n}`): void => {
  const value = JSON.stringify({ PublicIP: ip, BackendType: 'toy', BackendData: { Token: token } })
  sqlOf(at, `INSERT INTO lease (key, value, revision) VALUES ('10.244.${n}.0-24', '${value}', ${n})`)
}

const objectsWith = (at: Scene, part: string): readonly string[] =>
  [...at.kernel.objects.values()].map(textOf).filter((text) => text.includes(part))

test('its keys are read and checked, and a misspelled one is reported with the nearest', async () => {
  await using at = scene(CONF.replace('"Colour":7', '"Colour":77'))
  const joining = at.join()
  assert.match(await until(() => at.detail('CONFIG_INVALID'), 'the condition'), /Backend\.Colour is 77; .*1 to 9/)
  at.file.configure(CONF.replace('Colour', 'Color'))
  assert.equal((await joining).place?.backend.type, 'toy')
  assert.match(at.detail('CONFIG_KEY_UNKNOWN') ?? '', /Backend\.Color is no key of toy; the nearest is Colour$/)
})

test('its keys are rows of the table in docs/configuration.md', () => {
  const [, , ...rows] = backendTable([...BACKENDS, toy]).split('\n')
  assert.equal(rows.at(-1), '| `toy` | `Colour` | 1 to 9 | 1 | the colour of the whole network |')
  assert.equal(rows.length, [...BACKENDS, toy].flatMap(({ keys }) => Object.keys(keys)).length)
})

test('its device and its routes to peers are put into the kernel; a lease that it refuses is reported', async () => {
  await using at = scene(CONF)
  for (const [n, token] of [
    [98, 'b'],
    [99, 'c'],
    [97, 7]
  ] as const)
    lease(at, n, token)
  const { place } = await at.join()
  assert.equal(place?.mtu, 1476)
  assert.deepEqual(Object.keys(place.lease.backendData[4] as object), ['Token'])
  await until(() => objectsWith(at, 'dev toy.7').length === 2, 'the routes')
  assert.deepEqual(objectsWith(at, 'route 10.244'), [
    'route 10.244.98.0/24 dev toy.7 proto 87',
    'route 10.244.99.0/24 dev toy.7 proto 87'
  ])
  assert.equal(at.detail('LEASE_MALFORMED'), 'lease 10.244.97.0-24 has no Token')
})

test('what it publishes is kept over a restart, even if another value would be derived now', async () => {
  const first = scene(CONF)
  const published = (await first.join()).place?.lease.backendData
  await first.stop()
  await using second = scene(CONF, HOST, first.folder)
  assert.deepEqual((await second.join({ identity: 'another' })).place?.lease.backendData, published)
})

test('our lease is found by our device after our address has changed', async () => {
  const first = scene(CONF)
  const before = (await first.join()).place?.lease ?? assert.fail('no lease')
  await first.stop()
  const [eth0, , everywhere] = HOST as [Link, KernelObject, KernelObject]
  const moved: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.55/24') }
  const own = link('toy.7', { alias: (before.backendData[4] as { Token: string }).Token })
  await using second = scene(CONF, [eth0, moved, everywhere, own], first.folder)
  const { place } = await second.join({ previous: before.subnet, remembered: undefined })
  const now = place?.lease ?? assert.fail('no lease')
  assert.equal(leaseKey(now), leaseKey(before))
  assert.equal(now.publicIp[4] && formatIp(now.publicIp[4]), '192.0.2.55')
})

test('our lease is found by our device after our address and the backend have changed', async () => {
  const first = scene(CONF)
  const before = (await first.join()).place?.lease ?? assert.fail('no lease')
  await first.stop()
  const [eth0, , everywhere] = HOST as [Link, KernelObject, KernelObject]
  const moved: KernelObject = { kind: 'address', device: 'eth0', prefix: prefix('192.0.2.55/24') }
  const own = link('toy.7', { alias: (before.backendData[4] as { Token: string }).Token })
  await using second = scene(HOST_GW, [eth0, moved, everywhere, own], first.folder)
  const { place } = await second.join({ previous: before.subnet, remembered: undefined })
  assert.equal(place?.lease.backendType, 'host-gw')
  assert.equal(leaseKey(place.lease), leaseKey(before))
  assert.equal(place.lease.publicIp[4] && formatIp(place.lease.publicIp[4]), '192.0.2.55')
})

test('an existing device is adopted, and objects on it are ours from then on', async () => {
  const stale = routeOn('oldtoy.7', '10.244.200.0/24')
  await using at = scene(CONF, [...HOST, link('oldtoy.7'), stale, link('oldtoy.3'), routeOn('oldtoy.3', '10.9.0.0/24')])
  lease(at, 99, 'c')
  await at.join()
  await until(
    () => objectsWith(at, 'dev oldtoy.7').join() === 'route 10.244.99.0/24 dev oldtoy.7 proto 87',
    'its routes'
  )
  assert.equal(at.kernel.objects.has('link toy.7' as Key), false)
  assert.equal(objectsWith(at, 'dev oldtoy.3').length, 1, 'a device of another network is left alone')
})

test('a daemon whose configuration no longer names it removes its device, and no device of others', async () => {
  const others = [link('oldtoy.7'), link('toybox'), link('toy.8', { form: { type: 'other', of: 'dummy' } })]
  await using at = scene(HOST_GW, [...HOST, link('toy.7'), ...others])
  await at.join()
  await until(() => !at.kernel.objects.has('link toy.7' as Key), 'the old device to be removed')
  for (const other of others) assert.ok(at.kernel.objects.has(keyOf(other)), other.name)
})

test('weftd clean, which knows no configuration, removes its device', async () => {
  const at = scene(CONF, [...HOST, link('toy.7')])
  await using _ = at
  const stop = new AbortController()
  void at.reconciler.run(stop.signal)
  await at.reconciler.observing
  await at.reconciler.leave(() => false)
  stop.abort()
  assert.equal(at.kernel.objects.has('link toy.7' as Key), false)
  assert.ok(at.kernel.objects.has('link eth0' as Key))
})

test('its devices never count as the interface to the other nodes, nor as an overlapping network', async () => {
  const [eth0, address] = HOST as [Link, KernelObject]
  const onToy: KernelObject = { kind: 'address', device: 'toybox', prefix: prefix('10.244.7.1/24') }
  await using at = scene(HOST_GW, [eth0, address, link('toybox'), onToy])
  assert.equal((await at.join()).place?.node.device, 'eth0')
  assert.equal(at.detail('NETWORK_OVERLAPS'), undefined)
})

test('two nodes that publish one token are both named', async () => {
  await using at = scene(CONF)
  lease(at, 98, 'x')
  lease(at, 99, 'x')
  await at.join()
  const detail = await until(() => at.detail('VTEP_MAC_CONFLICT'), 'the condition')
  assert.match(detail, /^token x is published by .*192\.0\.2\.98.* and by .*192\.0\.2\.99/)
})

test('a kernel that lacks its device is reported', async () => {
  await using at = scene(CONF)
  const { place } = await at.join()
  const lacking = new Set(['try-toy'])
  const missing = async () =>
    (place?.backend.features ?? []).flatMap((feature) =>
      feature.kind === 'link' && lacking.has(feature.name)
        ? [new WeftError('KERNEL_FEATURE_MISSING', `this kernel can't make a ${feature.name}`, 'load it')]
        : []
    )
  const stop = new AbortController()
  const complete = Promise.withResolvers<void>()
  const running = (work: Promise<unknown>) => void work.catch(() => undefined)
  await followFeatures({ missing, health: at.health }, complete.resolve, { running, signal: stop.signal })
  assert.equal(at.detail('KERNEL_FEATURE'), "this kernel can't make a try-toy")
  lacking.clear()
  await complete.promise
  assert.equal(at.detail('KERNEL_FEATURE'), undefined)
})

/** A toy whose token is made of a secret of this host. */
const keeping = (...files: readonly string[]): Registry =>
  registry([
    {
      ...toy,
      secret: {
        files,
        isValid: (text) => /^[0-9a-f]{16}$/.test(text),
        make: (random) => Buffer.from(random(8)).toString('hex')
      },
      publish: ({ publicIp, secret }) =>
        Object.fromEntries(perFamily(publicIp).map(([family]) => [family, { Token: `of ${secret}` }]))
    }
  ])

test('its secret is made once, kept in a file for root, and stays out of the lease', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-secret-'))
  const file = join(folder, 'keys', 'toy')
  try {
    await using at = new Scene(undefined, { registry: keeping(file) })
    at.file.configure(CONF)
    const { place } = await at.join()
    const secret = readFileSync(file, 'utf8').trim()
    assert.deepEqual(place?.lease.backendData[4], { Token: `of ${secret}` })
    assert.equal(place.node.secret, secret)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    await using again = new Scene(undefined, { registry: keeping(file) })
    again.file.configure(CONF)
    assert.equal((await again.join()).place?.node.secret, secret)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a secret in the second of its files is used where the first is missing or spoiled, and is not copied', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-secret-'))
  const [own, other] = [join(folder, 'own'), join(folder, 'other')]
  try {
    writeFileSync(other, '00112233445566ff\n')
    for (const spoiled of [undefined, 'half a key']) {
      if (spoiled !== undefined) writeFileSync(own, spoiled)
      await using at = new Scene(undefined, { registry: keeping(own, other) })
      at.file.configure(CONF)
      assert.equal((await at.join()).place?.node.secret, '00112233445566ff')
      assert.equal(existsSync(own), spoiled !== undefined)
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a secret whose file is not writable lasts until weftd ends', async () => {
  await using at = new Scene(undefined, { registry: keeping('/proc/no/such/place') })
  at.file.configure(CONF)
  assert.match((await at.join()).place?.node.secret ?? '', /^[0-9a-f]{16}$/)
})

test('a refused configuration leaves no secret: none in a file of its backend, none for the next backend', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-secret-'))
  const [toys, others] = [join(folder, 'toy'), join(folder, 'other')]
  const keepingToy = { ...toy, secret: { files: [toys], isValid: () => true, make: () => 'of toy' } }
  const other = {
    ...toy,
    ...{ type: 'other', secret: { files: [others], isValid: () => true, make: () => 'of other' } }
  }
  const tooLarge: typeof toy = {
    ...keepingToy,
    mtu: () => {
      throw new WeftError('CONFIG_INVALID', 'Backend.Colour is too large for eth0', 'choose another')
    }
  }
  try {
    await using at = new Scene(undefined, { registry: registry([tooLarge, other]) })
    at.file.configure(CONF)
    const joining = at.join()
    await until(() => at.detail('CONFIG_INVALID'), 'the condition')
    at.file.configure(CONF.replace('"toy"', '"other"'))
    assert.equal((await joining).place?.node.secret, 'of other')
    assert.deepEqual([existsSync(toys), existsSync(others)], [false, true])
  } finally {
    rmSync(folder, { recursive: true })
  }
})
