// Veths with one end in a sandbox, and the deletion of links, against the real kernel in a namespace of its own.
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../daemon/backend/registry.ts'
import { SerialQueue } from '../../daemon/base/serial-queue.ts'
import { LinkDeleter } from '../../daemon/kernel/delete-links.ts'
import { missingFeatures } from '../../daemon/kernel/features.ts'
import { RequestSocket } from '../../daemon/kernel/netlink/request-socket.ts'
import type { DriftReport } from '../../daemon/reconcile/drift.ts'
import { Reconciler } from '../../daemon/reconcile/reconciler.ts'
import { difference } from '../../daemon/state/difference.ts'
import { type KernelObject, keyOf, type Link, stateOf } from '../../daemon/state/object.ts'
import { DOOMED_GROUP } from '../../daemon/state/ownership.ts'
import {
  applied,
  bridge,
  inOwnNamespace,
  ip,
  open,
  prefix,
  put,
  quiet,
  remove,
  route,
  run,
  sandboxName,
  sandboxPath,
  skip,
  veth,
  Watch
} from './kernel-namespace.ts'
import { until } from './run.ts'

const backends = registry(BACKENDS)

inOwnNamespace()

test('a pair of veths is created with its end in the sandbox, and the sandbox’s objects inside', {
  skip
}, async () => {
  await using kernel = await open()
  const host = veth('veth1', { alias: 'weft test pod', master: 'br0', hairpin: true, mtu: 1400 })
  await applied(kernel, put(bridge), put(host))
  await using watch = new Watch(kernel, (object) => object.kind === 'link')
  await watch.shows(host)
  const files = readdirSync('/proc/self/fd').length
  {
    using sandbox = await kernel.sandbox(sandboxPath)
    const inside: readonly KernelObject[] = [
      { kind: 'link', name: 'lo', up: true },
      { kind: 'link', name: 'eth0', up: true },
      { kind: 'address', device: 'eth0', prefix: prefix('10.9.0.2/24') },
      { kind: 'address', device: 'eth0', prefix: prefix('fd00:9::2/64'), nodad: true },
      { kind: 'sysctl', path: 'net/ipv6/conf/eth0/accept_dad', value: '0' },
      route('0.0.0.0/0', { gateway: ip('10.9.0.1'), device: 'eth0' }),
      route('::/0', { gateway: ip('fd00:9::1'), device: 'eth0' })
    ]
    await applied(sandbox, ...inside.map(put))
    const state = await sandbox.read(['net/ipv6/conf/eth0/accept_dad'])
    assert.deepEqual(difference(stateOf(inside), state, inside.map(keyOf)), [])
    const end = state.get(keyOf({ kind: 'link', name: 'eth0' }))
    assert.ok(end?.kind === 'link' && end.mac === '02:00:00:00:00:0a' && end.mtu === 1400)
    assert.throws(() => readFileSync('/proc/sys/net/ipv6/conf/eth0/accept_dad'), { code: 'ENOENT' })
    const [outside] = await sandbox.apply([put({ kind: 'sysctl', path: 'kernel/panic', value: '7' })])
    assert.match(outside?.error?.message ?? '', /belongs to the whole host/)
  }
  assert.equal(readdirSync('/proc/self/fd').length, files)
  const [second] = await kernel.apply([put(veth('veth2', { alias: 'another' }))])
  assert.match(second?.error?.message ?? '', /EEXIST/)
  const [third] = await kernel.apply([put(veth('veth1', { alias: 'another' }))])
  assert.match(third?.error?.message ?? '', /EEXIST/)
  assert.match(run('ip', 'link', 'show', 'veth1'), /alias weft test pod/)
  assert.match(run('ip', '-n', sandboxName, 'link', 'show', 'eth0'), /02:00:00:00:00:0a/)
  await applied(kernel, remove(host))
  await watch.lacks(host)
  assert.doesNotMatch(run('ip', '-n', sandboxName, 'link'), /eth0/)
  await applied(kernel, remove(bridge))
})

test('a link inside a sandbox can be removed from inside', { skip }, async () => {
  await using kernel = await open()
  await applied(kernel, put(veth('veth1')))
  {
    using sandbox = await kernel.sandbox(sandboxPath)
    await applied(sandbox, remove({ kind: 'link', name: 'eth0' }))
    assert.ok(!(await sandbox.read()).has(keyOf({ kind: 'link', name: 'eth0' })))
  }
  await applied(kernel, remove(veth('veth1')))
})

test('what is no sandbox is refused with its path', { skip }, async () => {
  await using kernel = await open()
  const files = readdirSync('/proc/self/fd').length
  await assert.rejects(kernel.sandbox('/run/netns/none-of-that-name'), {
    code: 'SANDBOX_GONE',
    message: /none-of-that-name/
  })
  await assert.rejects(kernel.sandbox('/proc/thread-self/ns/mnt'), {
    code: 'SANDBOX_INVALID',
    message: /no network namespace/
  })
  await assert.rejects(kernel.sandbox('/etc/hostname'), { code: 'SANDBOX_INVALID', message: /no network namespace/ })
  await assert.rejects(kernel.sandbox('/proc/thread-self/ns/net'), { code: 'SANDBOX_INVALID', message: /weftd's own/ })
  assert.equal(readdirSync('/proc/self/fd').length, files)
})

test('a port of a bridge that is to have none gets no link-local address when its other end comes up', {
  skip
}, async () => {
  await using kernel = await open()
  const [with6, without6] = ['v6on', 'v6off'].map((name) => veth(name, { master: 'br0', linkLocal: name === 'v6on' }))
  assert.ok(with6 && without6)
  await applied(kernel, put(bridge), put({ ...with6, form: { type: 'veth', peer: { name: 'p6on' } } }))
  await applied(kernel, put({ ...without6, form: { type: 'veth', peer: { name: 'p6off' } } }))
  await using watch = new Watch(kernel, (object) => object.kind === 'address')
  await applied(kernel, put({ kind: 'link', name: 'p6off', up: true }), put({ kind: 'link', name: 'p6on', up: true }))
  const local = (device: string) =>
    [...watch.state.values()].some((object) => object.kind === 'address' && object.device === device)
  await watch.until('the link-local address', () => local('v6on') && local('p6off'))
  assert.equal(local('v6off'), false)
  await applied(kernel, remove(with6), remove(without6), remove(bridge))
})

test('50 links removed together are one deletion; those that arrive meanwhile are the next', {
  skip,
  timeout: 300_000
}, async () => {
  await using kernel = await open()
  const links = Array.from(
    { length: 50 },
    (_, n): Link => ({ kind: 'link', name: `many${n}`, form: { type: 'veth', peer: { name: `peer${n}` } } })
  )
  await applied(kernel, ...links.map(put))
  using socket = new RequestSocket(new SerialQueue())
  const remover = new LinkDeleter([socket], quiet)
  const [early, late] = [links.slice(0, 40), links.slice(40)]
  const first = Promise.all(early.map((link) => remover.remove(link)))
  // The first round is under way once the microtasks have run.
  await Promise.resolve().then(() => undefined)
  const second = Promise.all(late.map((link) => remover.remove(link)))
  for (const error of [...(await first), ...(await second)]) assert.ifError(error)
  assert.doesNotMatch(run('ip', 'link'), /many|peer/)
  assert.equal(await remover.remove(early[0] ?? assert.fail()), undefined)
  await remover.idle()
  assert.ok(remover.rounds <= 2, `${remover.rounds} rounds`)
})

test('a link is removed while the call for an earlier one has not returned yet', { skip }, async () => {
  await using kernel = await open()
  const links = ['early0', 'later0'].map(
    (name): Link => ({ kind: 'link', name, form: { type: 'veth', peer: { name: `${name}p` } } })
  )
  await applied(kernel, ...links.map(put))
  using first = new RequestSocket(new SerialQueue())
  using second = new RequestSocket(new SerialQueue())
  const { promise: gate, resolve: letReturn } = Promise.withResolvers<void>()
  const slow: Pick<RequestSocket, 'send' | 'indexOf' | 'nameOf'> = {
    indexOf: (device) => first.indexOf(device),
    nameOf: (index) => first.nameOf(index),
    async send(messages) {
      const failures = await first.send(messages)
      await gate
      return failures
    }
  }
  // The last one is taken first.
  const remover = new LinkDeleter([second, slow], quiet)
  for (const link of links) {
    assert.ifError(await remover.remove(link))
    assert.doesNotMatch(run('ip', 'link'), new RegExp(link.name))
  }
  assert.equal(remover.rounds, 2)
  letReturn()
  await remover.idle()
})

test('a link runs once the other end of its pair is up, and not before', { skip }, async () => {
  await using kernel = await open()
  const pair: Link = { kind: 'link', name: 'near0', up: true, form: { type: 'veth', peer: { name: 'far0' } } }
  await applied(kernel, put(pair))
  // Until the kernel has looked for the first time its state is unknown, which counts as up.
  await until(async () => !(await kernel.runs('near0', 0)), { what: 'a pair without carrier' })
  assert.equal(await kernel.runs('nowhere0', 0), false)
  const waiting = [kernel.runs('near0', 60_000), kernel.runs('near0', 60_000)]
  await applied(kernel, { do: 'put', object: { kind: 'link', name: 'far0', up: true } })
  assert.deepEqual(await Promise.all(waiting), [true, true])
})

test('a link that can’t be deleted is an error, and does not stop others', { skip }, async () => {
  await using kernel = await open()
  const good: Link = { kind: 'link', name: 'good0', form: { type: 'veth', peer: { name: 'good1' } } }
  await applied(kernel, put(good))
  const outcomes = await kernel.apply([remove({ kind: 'link', name: 'lo' }), remove(good)])
  assert.match(outcomes[0]?.error?.message ?? '', /refused to remove link lo: EOPNOTSUPP/)
  assert.ifError(outcomes[1]?.error)
  assert.match(run('ip', 'link', 'show', 'lo'), /group default/)
})

test('links that a killed daemon had begun to delete are deleted at the start', { skip }, async () => {
  run('ip', 'link', 'add', 'left0', 'group', String(DOOMED_GROUP), 'type', 'veth', 'peer', 'name', 'left1')
  await using kernel = await open()
  await using watch = new Watch(kernel, (object) => object.kind === 'link')
  await watch.until('the first dump', () => watch.observations.length > 0)
  await watch.lacks({ kind: 'link', name: 'left0' })
})

test('this kernel has what the lab needs, and trying it leaves nothing behind', { skip }, async () => {
  const links = run('ip', '-o', 'link')
  assert.deepEqual(await missingFeatures(backends.configure('vxlan', {}).features), [])
  assert.equal(run('ip', '-o', 'link'), links)
})

test('what was on a link that we removed is not missed on the next one of its name, however busy weftd is', {
  skip
}, async () => {
  await using kernel = await open()
  const drifts: DriftReport[] = []
  const reconciler = new Reconciler({
    ...{ kernel, log: quiet, now: () => performance.now(), refused: () => undefined },
    ...{ drift: (report) => drifts.push(report), interest: () => true, recognises: () => undefined }
  })
  const stop = new AbortController()
  const running = reconciler.run(stop.signal)
  await reconciler.observing
  const pod = [
    veth('pod7'),
    ...['10.7.0.1/32', '10.7.0.2/32'].map(
      (each): KernelObject => ({ kind: 'address', device: 'pod7', prefix: prefix(each) })
    )
  ]
  const busy = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
  for (let round = 0; round < 3; round++) {
    await reconciler.want('pod', pod)
    await reconciler.want('pod', [])
    await reconciler.want('pod', pod)
    busy()
    // What is missed is made again within ECHO.
    await new Promise((resolve) => setTimeout(resolve, 150))
    await reconciler.want('pod', [])
  }
  stop.abort()
  await running
  assert.deepEqual(
    drifts.map(({ object, what }) => `${what} ${object}`),
    []
  )
})
