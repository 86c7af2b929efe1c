// Pods on the real kernel: ADD, CHECK and DEL in both modes and families, what goes wrong on the way, many at once,
// restarts.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { hostName } from '../../daemon/attachment/identity.ts'
import { toCni } from '../../daemon/cni/result.ts'
import { add } from '../../daemon/pod/add.ts'
import { check } from '../../daemon/pod/check.ts'
import { del } from '../../daemon/pod/del.ts'
import { gc } from '../../daemon/pod/gc.ts'
import { addLoopback, checkLoopback, delLoopback } from '../../daemon/pod/loopback.ts'
import { rebuild } from '../../daemon/pod/recovery/rebuild.ts'
import { status } from '../../daemon/pod/status.ts'
import type { Key } from '../../daemon/state/object.ts'
import type { ResultInterface } from '../../plugins/cni/types.ts'
import { routeFrom } from '../../plugins/keys/routes.ts'
import { inOwnNamespace, run, skip } from './kernel-namespace.ts'
import { hostLinks, podPlace, rejectsWith, Sandbox, veths } from './pod-scene.ts'
import { until } from './run.ts'

inOwnNamespace()

const jsonOf = (text: string): readonly Record<string, unknown>[] => JSON.parse(text) as Record<string, unknown>[]

for (const mode of ['bridge', 'routed'] as const) {
  describe(`${mode} mode`, { skip }, () => {
    test('two pods reach the gateway and each other by both families at once, and CHECK agrees; DEL leaves nothing', async () => {
      await using place = await podPlace({ mode })
      const { context, dataDir } = place
      using first = new Sandbox()
      using second = new Sandbox()
      const results = []
      for (const sandbox of [first, second]) results.push(await add(context, sandbox.attachment({ dataDir })))
      const [one, two] = results
      assert.ok(one && two)
      // Sysctls of the host are main's; pods on one bridge need none, routed ones do.
      if (mode === 'routed')
        for (const path of ['ipv4.ip_forward', 'ipv6.conf.all.forwarding']) run('sysctl', '-qw', `net.${path}=1`)
      for (const ip of ['10.244.1.1', 'fd00:0:0:1::1', '10.244.1.3', 'fd00:0:0:1::3'])
        assert.ok(await first.reaches(ip), `${mode} ${ip}`)
      assert.ok(await second.reaches('10.244.1.2'))
      assert.equal(first.exec('ip', '-6', 'addr', 'show', 'tentative'), '')
      if (mode === 'bridge') assert.equal(run('ip', '-6', 'addr', 'show', 'dev', 'cni0', 'tentative'), '')
      for (const each of one.interfaces) assertAsTold(each, first)
      await check(context, first.attachment({ dataDir }), one)
      await check(context, second.attachment({ dataDir }), two)
      for (const sandbox of [first, second]) await del(context, sandbox.attachment({ dataDir }))
      assert.deepEqual(veths(), [])
      assert.deepEqual(place.reservations(), [])
      for (const sandbox of [first, second]) assert.doesNotMatch(sandbox.exec('ip', '-o', 'link'), /eth0/)
      assert.deepEqual(run('ip', 'route', 'show', 'proto', '87'), '')
      await del(context, first.attachment({ dataDir }))
      assert.deepEqual(place.refused(), [])
    })

    test('a restarted daemon knows the pods by what the kernel says, keeps their routes and takes them down', async () => {
      await using place = await podPlace({ mode })
      using sandbox = new Sandbox()
      const attachment = sandbox.attachment({ dataDir: place.dataDir })
      const result = await add(place.context, attachment)
      await using restarted = await podPlace({ mode, dataDir: place.dataDir })
      assert.equal(await rebuild(restarted.context, place.dataDir), 1)
      await restarted.reconciler.trust()
      await check(restarted.context, attachment, result)
      assert.ok(await sandbox.reaches('10.244.1.1'))
      assert.deepEqual(
        restarted.context.attachments.list().map(({ containerId, link }) => [containerId, link]),
        [[sandbox.containerId, hostName(attachment)]]
      )
      const { sandbox: _, ...withoutSandbox } = attachment
      await del(restarted.context, withoutSandbox)
      assert.deepEqual([veths(), place.reservations()], [[], []])
    })

    test('a pod whose namespace went is forgotten without a repair; its DEL frees the address', async () => {
      await using place = await podPlace({ mode })
      const sandbox = new Sandbox()
      const attachment = sandbox.attachment({ dataDir: place.dataDir })
      await add(place.context, attachment)
      sandbox[Symbol.dispose]()
      await until(() => place.context.attachments.list().length === 0, { what: 'the pod to be forgotten' })
      assert.deepEqual(place.reconciler.differences(), [])
      assert.equal(place.reservations().length, 2)
      await del(place.context, attachment)
      assert.deepEqual([place.reservations(), place.refused(), veths()], [[], [], []])
    })
  })
}

for (const first of ['bridge', 'routed'] as const) {
  test(`a pod in routed mode and one on the bridge reach each other by both families, whichever came before (${first})`, {
    skip
  }, async () => {
    await using place = await podPlace()
    const { context, dataDir } = place
    for (const path of ['ipv4.ip_forward', 'ipv6.conf.all.forwarding']) run('sysctl', '-qw', `net.${path}=1`)
    const modes = [first, first === 'bridge' ? 'routed' : 'bridge'] as const
    using one = new Sandbox()
    using two = new Sandbox()
    const attachments = [one, two].map((sandbox, at) => {
      const mode = modes[at]
      return sandbox.attachment({ dataDir, interface: mode === undefined ? {} : { mode } })
    })
    const results = []
    for (const attachment of attachments) results.push(await add(context, attachment))
    // Solicitations are tried again each second, so one that came too early costs no more than that.
    for (const [from, to] of [
      [one, '10.244.1.3'],
      [two, '10.244.1.2'],
      [one, 'fd00:0:0:1::3'],
      [two, 'fd00:0:0:1::2']
    ] as const)
      await until(() => from.reaches(to), { what: `${to} to answer` })
    for (const [at, attachment] of attachments.entries()) await check(context, attachment, results[at] ?? assert.fail())
    const routed = attachments[modes.indexOf('routed')] ?? assert.fail()
    assert.match(run('ip', '-6', 'neigh', 'show', 'proxy'), /^fd00:0:0:1::[23] dev cni0 proxy *proto 87 *\n$/)

    await using restarted = await podPlace({ dataDir })
    assert.equal(await rebuild(restarted.context, dataDir), 2)
    await restarted.reconciler.trust()
    assert.match(run('ip', '-6', 'neigh', 'show', 'proxy'), /cni0/)
    await del(restarted.context, routed)
    assert.equal(run('ip', '-6', 'neigh', 'show', 'proxy'), '')
    assert.deepEqual([place.refused(), restarted.refused()], [[], []])
  })
}

/** A result's interface is the kernel's: MAC, and MTU where it is told. */
function assertAsTold({ name, mac, mtu, sandbox }: ResultInterface, pod: Sandbox): void {
  const [link] = jsonOf(
    sandbox === undefined ? run('ip', '-j', 'link', 'show', name) : pod.exec('ip', '-j', 'link', 'show', name)
  )
  assert.deepEqual([link?.address, mtu && link?.mtu], [mac, mtu], name)
}

class Pair implements Disposable {
  readonly #sandboxes: Sandbox[] = []
  add(sandbox: Sandbox): this {
    this.#sandboxes.push(sandbox)
    return this
  }
  [Symbol.iterator] = () => this.#sandboxes[Symbol.iterator]();
  [Symbol.dispose](): void {
    for (const sandbox of this.#sandboxes) sandbox[Symbol.dispose]()
  }
}

describe('an ADD that cannot be', { skip }, () => {
  test('because the name is taken in the container leaves that interface alone and nothing behind', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    sandbox.exec('ip', 'link', 'add', 'eth0', 'type', 'bridge')
    const before = sandbox.exec('ip', 'addr')
    await rejectsWith(
      add(place.context, sandbox.attachment({ dataDir: place.dataDir })),
      'INTERFACE_EXISTS',
      /eth0 exists already in \/run\/netns/
    )
    assert.equal(sandbox.exec('ip', 'addr'), before)
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })

  test('because the same was added before keeps the first', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    const result = await add(place.context, attachment)
    await rejectsWith(add(place.context, attachment), 'INTERFACE_EXISTS', new RegExp(hostName(attachment)))
    await check(place.context, attachment, result)
    assert.ok(await sandbox.reaches('10.244.1.1'))
  })

  test("because the namespace is missing, is a file, or is the host's own names the path and leaves nothing", async () => {
    await using place = await podPlace()
    const file = join(place.dataDir, 'file')
    writeFileSync(file, '')
    using sandbox = new Sandbox()
    for (const [path, code] of [
      ['/run/netns/weft-none', 'SANDBOX_GONE'],
      [file, 'SANDBOX_INVALID'],
      ['/proc/thread-self/ns/net', 'SANDBOX_INVALID']
    ] as const) {
      await rejectsWith(
        add(place.context, { ...sandbox.attachment({ dataDir: place.dataDir }), sandbox: path }),
        code,
        new RegExp(path)
      )
    }
    assert.deepEqual([hostLinks(), place.reservations()], [[], []])
  })

  test('because a gateway is not on the link frees the address and takes the link away', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const ipam = {
      dataDir: place.dataDir,
      requested: [],
      ranges: [],
      routes: [routeFrom({ dst: '192.0.2.0/24', gw: '198.51.100.1' }) ?? assert.fail()]
    }
    await rejectsWith(
      add(place.context, { ...sandbox.attachment({ dataDir: place.dataDir }), ipam }),
      'KERNEL_REFUSED',
      /198\.51\.100\.1/
    )
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })

  test('because the bridge bears another network, or is none, says so', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    const seen = (key: string) => until(() => place.reconciler.observed.has(key as Key), { what: `${key} to be seen` })
    run('ip', 'link', 'add', 'cni0', 'type', 'veth')
    await seen('link cni0')
    await rejectsWith(add(place.context, attachment), 'BRIDGE_INVALID', /"cni0" already exists but is not a bridge/)
    run('sh', '-c', 'ip link del cni0; ip link add cni0 type bridge; ip addr add 10.99.0.1/24 dev cni0')
    await seen('address 10.99.0.1/24 dev cni0')
    await rejectsWith(
      add(place.context, attachment),
      'BRIDGE_INVALID',
      /"cni0" already has an address different from 10\.244\.1\.1\/24: 10\.99\.0\.1\/24/
    )
    assert.deepEqual([veths(), place.reservations()], [[], []])
    run('sh', '-c', 'ip link del cni0; ip link add theirs type bridge; ip addr add 10.244.1.1/24 dev theirs')
    await seen('address 10.244.1.1/24 dev theirs')
    const second = /"theirs" already has 10\.244\.1\.1\/24, the gateway/
    await rejectsWith(add(place.context, attachment), 'BRIDGE_INVALID', second)
    run('ip', 'link', 'del', 'theirs')
  })

  test('because every address is taken says how many, raises the condition, and a DEL ends it', async () => {
    await using place = await podPlace({ subnet: { 4: '10.244.1.0/30' } })
    using first = new Sandbox()
    using second = new Sandbox()
    const [one, two] = [first, second].map((each) => each.attachment({ dataDir: place.dataDir }))
    assert.ok(one && two)
    await add(place.context, one)
    await rejectsWith(
      add(place.context, two),
      'POOL_EXHAUSTED',
      /no IP addresses available in range set: 10\.244\.1\.1-10\.244\.1\.2: all 1 are taken/
    )
    await rejectsWith(status(place.context, two), 'POOL_EXHAUSTED', /10\.244\.1\.1-10\.244\.1\.2/)
    assert.deepEqual([...place.conditions.keys()], ['POOL_EXHAUSTED'])
    const held = `10\\.244\\.1\\.2 ${first.containerId.slice(0, 12)} eth0`
    assert.match(place.conditions.get('POOL_EXHAUSTED') ?? '', new RegExp(held))
    await del(place.context, one)
    assert.deepEqual([...place.conditions.keys()], [])
    await status(place.context, two)
    await add(place.context, two)
  })
})

describe('CHECK', { skip }, () => {
  const breaks: readonly (readonly [string, (sandbox: Sandbox, host: string, dataDir: string) => void, RegExp])[] = [
    [
      'a removed address',
      (pod) => pod.exec('ip', 'addr', 'del', '10.244.1.2/24', 'dev', 'eth0'),
      /address 10\.244\.1\.2\/24 dev eth0/
    ],
    [
      'a renamed interface',
      (pod) => pod.exec('sh', '-c', 'ip link set eth0 down; ip link set eth0 name eth9'),
      /link eth0/
    ],
    ['a changed MAC', (pod) => pod.exec('ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:77'), /mac/],
    ['a missing default route', (pod) => pod.exec('ip', 'route', 'del', 'default'), /route default via 10\.244\.1\.1/],
    ['an interface that is down', (pod) => pod.exec('ip', 'link', 'set', 'eth0', 'down'), /link eth0 .*up/],
    [
      'a removed reservation',
      (_pod, _host, dataDir) => run('rm', join(dataDir, 'net1', '10.244.1.2'), join(dataDir, 'net1', 'fd00:0:0:1::2')),
      /no reservation/
    ]
  ]
  for (const [what, damage, message] of breaks) {
    test(`names ${what}`, async () => {
      await using place = await podPlace()
      using sandbox = new Sandbox()
      const attachment = sandbox.attachment({ dataDir: place.dataDir })
      const result = await add(place.context, attachment)
      damage(sandbox, hostName(attachment), place.dataDir)
      await rejectsWith(check(place.context, attachment, result), 'DIFFERENT', message)
    })
  }

  test('allows what later plugins of a chain do: another MTU, more routes, a MAC that the result tells', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    const result = await add(place.context, attachment)
    sandbox.exec('ip', 'link', 'set', 'eth0', 'mtu', '1300')
    sandbox.exec('ip', 'route', 'add', '192.0.2.0/24', 'via', '10.244.1.1')
    sandbox.exec('ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:77')
    const interfaces = result.interfaces.map((each) =>
      each.sandbox === undefined ? each : { ...each, mac: '02:00:00:00:00:77' }
    )
    await check(place.context, attachment, { ...result, interfaces })
  })

  test("finds the host's end repaired by itself: in the bridge and up", async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    const result = await add(place.context, attachment)
    run('ip', 'link', 'set', hostName(attachment), 'nomaster')
    run('ip', 'link', 'set', hostName(attachment), 'down')
    await until(() => /master cni0 .*state UP/.test(run('ip', '-o', 'link', 'show', hostName(attachment))), {
      what: 'the repair'
    })
    await until(() => check(place.context, attachment, result).then(() => true), { what: 'CHECK to agree' })
    assert.ok(await sandbox.reaches('10.244.1.1'))
  })
})

describe('many', { skip }, () => {
  test('fifty at once make one bridge and fifty addresses, and fifty DELs mixed with further ADDs leave nothing of the first', async () => {
    await using place = await podPlace({ subnet: { 4: '10.244.1.0/24' } })
    using firsts = new Pair()
    using seconds = new Pair()
    for (let at = 0; at < 50; at++) firsts.add(new Sandbox())
    for (let at = 0; at < 20; at++) seconds.add(new Sandbox())
    const attachments = (pair: Pair) => [...pair].map((each) => each.attachment({ dataDir: place.dataDir }))
    const results = await Promise.all(attachments(firsts).map((each) => add(place.context, each)))
    assert.equal(new Set(results.map((each) => toCni(each).ips[0]?.address)).size, 50)
    assert.equal(hostLinks().filter((name) => name === 'cni0').length, 1)
    assert.equal(veths().length, 50)
    assert.equal(run('ip', '-4', '-o', 'addr', 'show', 'dev', 'cni0').trim().split('\n').length, 1)
    await Promise.all([
      ...attachments(firsts).map((each) => del(place.context, each)),
      ...attachments(seconds).map((each) => add(place.context, each))
    ])
    assert.deepEqual([...veths()].sort(), attachments(seconds).map(hostName).sort())
    assert.equal(place.reservations().length, 20)
    const [kept] = attachments(seconds)
    assert.ok(kept)
    await gc(place.context, kept, [kept])
    assert.deepEqual([veths(), place.reservations().length], [[hostName(kept)], 1])
  })

  test('ADD and DEL of one attachment follow each other, whatever comes at once', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    await Promise.all(
      Array.from({ length: 10 }, () => [add(place.context, attachment), del(place.context, attachment)]).flat()
    )
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })
})

describe('what others made', { skip }, () => {
  test("a pod of flannel's bridge plugin is taken down by its reservation and its name in the container", async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    run('ip', 'link', 'add', 'veth12345678', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', sandbox.name)
    const attachment = sandbox.attachment({ dataDir: place.dataDir })
    run('mkdir', join(place.dataDir, 'net1'))
    writeFileSync(join(place.dataDir, 'net1', '10.244.1.9'), `${sandbox.containerId}\r\neth0`)
    await del(place.context, attachment)
    await until(() => veths().length === 0, { what: 'the pair to be gone' })
    assert.deepEqual(place.reservations(), [])
  })

  test('a DEL for what was never added touches no interface of that name', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    sandbox.exec('ip', 'link', 'add', 'eth0', 'type', 'bridge')
    await del(place.context, sandbox.attachment({ dataDir: place.dataDir }))
    assert.match(sandbox.exec('ip', '-o', 'link'), /eth0/)
  })
})

test("loopback goes up beside the pod's network, is reported, compared and set down", { skip }, async () => {
  await using place = await podPlace()
  using sandbox = new Sandbox()
  const lo = { ...sandbox.attachment({ dataDir: place.dataDir }), interface: { kind: 'loopback' } as const }
  const [result] = await Promise.all([
    addLoopback(place.context, lo),
    add(place.context, sandbox.attachment({ dataDir: place.dataDir }))
  ])
  assert.deepEqual(toCni(result), {
    interfaces: [{ name: 'lo', mac: '00:00:00:00:00:00', sandbox: sandbox.path }],
    ips: [
      { interface: 0, address: '127.0.0.1/8' },
      { interface: 0, address: '::1/128' }
    ],
    routes: [],
    dns: {}
  })
  await checkLoopback(place.context, lo)
  await delLoopback(place.context, lo)
  await rejectsWith(checkLoopback(place.context, lo), 'DIFFERENT', /lo is down/)
  sandbox[Symbol.dispose]()
  await delLoopback(place.context, lo)
})
