// An interface that is handed over: reserved and connected in two steps, its end moved and configured by the caller
// from the result, as Docker does it.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ownerOf, peerName } from '../../daemon/attachment/identity.ts'
import type { AttachmentResult } from '../../daemon/attachment/result.ts'
import { add } from '../../daemon/pod/add.ts'
import { reserve } from '../../daemon/pod/allocate.ts'
import { connect, prepareConnect } from '../../daemon/pod/connect.ts'
import { del } from '../../daemon/pod/del.ts'
import { disconnect } from '../../daemon/pod/disconnect.ts'
import { release } from '../../daemon/pod/release.ts'
import { linkNamed } from '../../daemon/state/object.ts'
import { formatIp, formatPrefix } from '../../ipam/address.ts'
import { inOwnNamespace, run, skip } from './kernel-namespace.ts'
import { hostLinks, podPlace, rejectsWith, Sandbox, veths } from './pod-scene.ts'
import { until } from './run.ts'

inOwnNamespace()

/** What a caller knows is the result: moves the end into the container as eth0, and sets what the result says. */
function moveInto(sandbox: Sandbox, { interfaces, addresses, routes }: AttachmentResult): void {
  const end = interfaces[addresses[0]?.interface ?? -1] ?? assert.fail('no interface has the addresses')
  assert.equal(end.sandbox, undefined)
  run('ip', 'link', 'set', end.name, 'netns', sandbox.name, 'name', 'eth0')
  for (const { prefix } of addresses)
    sandbox.exec(
      'ip',
      'address',
      'add',
      formatPrefix(prefix),
      'dev',
      'eth0',
      ...(prefix.ip.family === 6 ? ['nodad'] : [])
    )
  sandbox.exec('ip', 'link', 'set', 'eth0', 'up')
  for (const { destination, gateway, scope } of routes) {
    const by = gateway === undefined ? [] : ['via', formatIp(gateway)]
    const reach = scope === undefined ? [] : ['scope', `${scope}`]
    sandbox.exec(
      'ip',
      `-${destination.ip.family}`,
      'route',
      'add',
      formatPrefix(destination),
      ...by,
      'dev',
      'eth0',
      ...reach
    )
  }
  assert.match(sandbox.exec('ip', '-o', 'link', 'show', 'eth0'), new RegExp(`mtu ${end.mtu} .*link/ether ${end.mac} `))
}

const ipamOf = (dataDir: string) => ({ dataDir, requested: [], ranges: [], routes: [] })

for (const mode of ['bridge', 'routed'] as const) {
  describe(`an interface handed over in ${mode} mode`, { skip }, () => {
    test('reaches a CNI pod of this host and is reached by it; both steps undone leave nothing', async () => {
      await using place = await podPlace({ mode })
      const { context, dataDir } = place
      if (mode === 'routed')
        for (const path of ['ipv4.ip_forward', 'ipv6.conf.all.forwarding']) run('sysctl', '-qw', `net.${path}=1`)
      using moved = new Sandbox()
      using pod = new Sandbox()
      await add(context, pod.attachment({ dataDir }))

      const { sandbox: _, ...rest } = moved.attachment({ dataDir })
      const attachment = { ...rest, interface: { ...rest.interface, isHandedOver: true } } as const
      const reserved = await reserve(context, attachment, ipamOf(dataDir))
      assert.deepEqual(place.reservations().toSorted(), ['10.244.1.2', '10.244.1.3', 'fd00:0:0:1::2', 'fd00:0:0:1::3'])
      assert.equal(veths().length, 1)

      const result = await context.attachments.inTurn(attachment, () =>
        connect(context, attachment, reserved, prepareConnect(context, attachment))
      )
      assert.ok(hostLinks().includes(peerName(attachment)))
      moveInto(moved, result)
      for (const ip of ['10.244.1.1', '10.244.1.2', 'fd00:0:0:1::1', 'fd00:0:0:1::2'])
        await until(() => moved.reaches(ip), { what: `${ip} to answer` })
      for (const ip of ['10.244.1.3', 'fd00:0:0:1::3']) assert.ok(await pod.reaches(ip), ip)
      assert.deepEqual(place.refused(), [])

      await disconnect(context, attachment, 'DEL')
      assert.equal(veths().length, 1)
      assert.doesNotMatch(moved.exec('ip', '-o', 'link'), /eth0/)
      assert.equal((await release(context, attachment, dataDir)).length, 2)
      await del(context, pod.attachment({ dataDir }))
      assert.deepEqual([veths(), place.reservations(), context.attachments.list()], [[], [], []])
      assert.equal(run('ip', 'route', 'show', 'proto', '87'), '')
    })
  })
}

describe('an address reserved ahead of its interface', { skip }, () => {
  test('is in use: neither a full pool nor the missing link makes it free, until it is released', async () => {
    await using place = await podPlace({ subnet: { 4: '10.244.1.0/30' } })
    const { context, dataDir } = place
    using ahead = new Sandbox()
    using other = new Sandbox()
    const attachment = ahead.attachment({ dataDir })
    await reserve(context, attachment, ipamOf(dataDir))
    assert.equal(context.attachments.reserved.has(ownerOf(attachment)), true)
    await rejectsWith(add(context, other.attachment({ dataDir })), 'POOL_EXHAUSTED', /10\.244\.1\.2/)
    await rejectsWith(reserve(context, attachment, ipamOf(dataDir)), 'ADDRESS_HELD', /10\.244\.1\.2/)
    await release(context, attachment, dataDir)
    await add(context, other.attachment({ dataDir }))
    await del(context, other.attachment({ dataDir }))
    assert.deepEqual(place.reservations(), [])
  })

  test('of a pair whose end nobody moved goes without a trace, the end included', async () => {
    await using place = await podPlace()
    const { context, dataDir } = place
    using unused = new Sandbox()
    const base = unused.attachment({ dataDir })
    const attachment = { ...base, interface: { ...base.interface, isHandedOver: true } } as const
    const reserved = await reserve(context, attachment, ipamOf(dataDir))
    await connect(context, attachment, reserved, prepareConnect(context, attachment))
    assert.equal(context.attachments.reserved.size, 0)
    await until(() => linkNamed(context.host.observed, peerName(attachment)) !== undefined, {
      what: 'the end to be seen'
    })
    await disconnect(context, attachment, 'DEL')
    await release(context, attachment, dataDir)
    assert.deepEqual([hostLinks(), place.reservations()], [['cni0'], []])
  })
})
