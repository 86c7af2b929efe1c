// CNI calls as the executable forwards them: versions, error numbers and words, GC and STATUS, on the real kernel.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CallHistory } from '../../daemon/cni/call-history.ts'
import { cniCalls } from '../../daemon/cni/calls.ts'
import { CONDITIONS } from '../../daemon/health/conditions.ts'
import type { CniRequest, Finished } from '../../plugins/protocol.ts'
import { inOwnNamespace, run, skip } from './kernel-namespace.ts'
import { type PodPlace, podPlace, Sandbox, veths } from './pod-scene.ts'

inOwnNamespace()

type Answer = Finished & { readonly json: { readonly [key: string]: unknown } }

/** A call of the weft plugin; `configuration` is laid over an ordinary one. */
function caller(place: PodPlace, plugin = 'weft') {
  const serve = cniCalls(place.context, new CallHistory(Date.now))
  return async (
    verb: string,
    sandbox: Sandbox | undefined,
    configuration: object = {},
    env: CniRequest['env'] = {}
  ): Promise<Answer> => {
    const stdin = JSON.stringify({
      cniVersion: '1.1.0',
      name: 'net1',
      type: plugin,
      ipam: { dataDir: place.dataDir },
      ...configuration
    })
    const identity =
      sandbox === undefined ? {} : { CNI_CONTAINERID: sandbox.containerId, CNI_IFNAME: 'eth0', CNI_NETNS: sandbox.path }
    const reply = await serve({
      v: 1,
      plugin,
      env: { CNI_COMMAND: verb, ...identity, ...env },
      stdin,
      deadlineMs: 60_000,
      did: []
    })
    assert.ok('exit' in reply, 'no delegate is asked for')
    assert.equal(reply.stderr, '')
    return { ...reply, json: reply.stdout === '' ? {} : (JSON.parse(reply.stdout) as object as Answer['json']) }
  }
}

describe('calls', { skip }, () => {
  test('go the whole way in each version: ADD, CHECK with its result, DEL twice', async () => {
    await using place = await podPlace({ subnet: { 4: '10.244.1.0/24' } })
    const call = caller(place)
    for (const cniVersion of ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
      using sandbox = new Sandbox()
      const added = await call('ADD', sandbox, { cniVersion })
      assert.equal(added.exit, 0, added.stdout)
      assert.equal(added.json.cniVersion, cniVersion)
      const checked = await call('CHECK', sandbox, { cniVersion, prevResult: added.json })
      assert.deepEqual(
        [checked.exit, checked.json.code],
        cniVersion < '0.4.0' ? [1, 1] : [0, undefined],
        checked.stdout
      )
      for (let times = 0; times < 2; times++)
        assert.deepEqual(await call('DEL', sandbox, { cniVersion }), {
          v: 1,
          exit: 0,
          stdout: '',
          stderr: '',
          json: {}
        })
    }
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })

  test('fail with a number of the specification, what is wrong, and the cure', async () => {
    await using place = await podPlace()
    const call = caller(place)
    using sandbox = new Sandbox()
    const wrong: readonly (readonly [Answer, number, RegExp])[] = [
      [await call('ADD', sandbox, {}, { CNI_NETNS: '/run/netns/weft-none' }), 8, /\/run\/netns\/weft-none.*Cure: /],
      [
        await call('ADD', sandbox, { ipam: { ranges: [[{ subnet: '10.1.2.3/24' }]] } }),
        7,
        /10\.1\.2\.3\/24 has host bits set.*Cure: /
      ],
      [await call('ADD', sandbox, {}, { CNI_ARGS: 'IP=10.244.1.1' }), 104, /10\.244\.1\.1 is subnet's gateway/],
      [await call('ADD', sandbox, { ipam: { type: 'dhcp' } }), 2, /ipam\.type: "dhcp"/],
      [
        await call('ADD', sandbox, {
          cniVersion: '0.2.0',
          ipam: { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.2.0.0/24' }]] }
        }),
        1,
        /0\.2\.0/
      ],
      [await call('CHECK', sandbox), 7, /prevResult/],
      [await caller(place, 'nonsense')('ADD', sandbox), 7, /nonsense/],
      [await call('ADD', undefined), 4, /CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME/]
    ]
    for (const [{ exit, json }, code, message] of wrong) {
      assert.deepEqual([exit, json.code], [1, code], JSON.stringify(json))
      assert.match(String(json.msg), message)
      assert.equal(json.cniVersion === '0.2.0' || json.cniVersion === '1.1.0', true)
    }
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })

  test('are refused while a condition blocks ADD, in its words; STATUS says 50, and DEL goes on', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    assert.equal((await caller(place)('ADD', sandbox)).exit, 0)
    const row = CONDITIONS.NO_LEASE
    const blocked: PodPlace = {
      ...place,
      context: {
        ...place.context,
        health: {
          ...place.context.health,
          blockers: () => [{ ...row, code: 'NO_LEASE', detail: 'the store is away', since: 0 }]
        }
      },
      [Symbol.asyncDispose]: async () => undefined
    }
    const call = caller(blocked)
    using other = new Sandbox()
    const refused = await call('ADD', other)
    assert.deepEqual([refused.json.code, refused.json.msg], [11, `${row.title}: the store is away. Cure: ${row.cure}`])
    assert.equal((await call('STATUS', undefined)).json.code, 50)
    assert.equal((await call('DEL', sandbox)).exit, 0)
    assert.deepEqual([veths(), place.reservations()], [[], []])
  })

  test('GC under either name keeps what is listed and nothing else of its network; null lists nothing', async () => {
    await using place = await podPlace()
    const call = caller(place)
    const pods = [new Sandbox(), new Sandbox(), new Sandbox(), new Sandbox()] as const
    using _disposed = { [Symbol.dispose]: () => pods.forEach((each) => void each[Symbol.dispose]()) }
    for (const each of pods.slice(0, 3)) assert.equal((await call('ADD', each)).exit, 0)
    const other = {
      name: 'net2',
      bridge: 'cni2',
      ipam: { dataDir: place.dataDir, ranges: [[{ subnet: '10.7.0.0/24' }]] }
    }
    assert.equal((await call('ADD', pods[3], other)).exit, 0)
    const listed = pods.slice(0, 2).map(({ containerId }) => ({ containerID: containerId, ifname: 'eth0' }))
    assert.equal((await call('GC', undefined, { 'cni.dev/valid-attachments': listed })).exit, 0)
    assert.deepEqual([veths().length, place.reservations().length], [3, 4])
    assert.equal((await call('GC', undefined, { 'cni.dev/attachments': listed.slice(0, 1) })).exit, 0)
    assert.deepEqual([veths().length, place.reservations().length], [2, 2])
    assert.ok(await pods[0].reaches('10.244.1.1'))
    assert.equal((await call('GC', undefined, { 'cni.dev/valid-attachments': null })).exit, 0)
    assert.deepEqual([veths().length, place.reservations().length], [1, 0])
    assert.equal((await call('STATUS', undefined)).stdout, '')
    assert.equal((await call('GC', undefined, other)).exit, 0)
    assert.deepEqual(veths(), [])
  })

  test('of the loopback plugin set lo up whatever the interface is called', async () => {
    await using place = await podPlace()
    using sandbox = new Sandbox()
    const added = await caller(place, 'loopback')('ADD', sandbox, { ipam: undefined })
    assert.equal(added.exit, 0, added.stdout)
    assert.match(run('ip', '-n', sandbox.name, 'link', 'show', 'lo'), /UP/)
  })
})
