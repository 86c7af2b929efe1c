// Pods that went without a DEL: when their addresses are freed and when not, and the notes from which the next weftd
// knows of them.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, test } from 'node:test'
import { aliasOf, hostName } from '../../../daemon/attachment/identity.ts'
import { allocate } from '../../../daemon/pod/allocate.ts'
import type { Known } from '../../../daemon/pod/attachments.ts'
import { placeForAdd } from '../../../daemon/pod/place.ts'
import { keepPodsFile, readPodsFile } from '../../../daemon/pod/recovery/pods-file.ts'
import { emptyAfterReboot, rebuild } from '../../../daemon/pod/recovery/rebuild.ts'
import { releaseVanished } from '../../../daemon/pod/vanished.ts'
import { type KernelObject, keyOf, stateOf } from '../../../daemon/state/object.ts'
import { formatIp, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { Networks } from '../../../ipam/networks.ts'
import { rangeSets } from '../../../ipam/pool.ts'
import { BOOT_DIRECTORY, type Reservations } from '../../../ipam/reservations.ts'
import type { Attachment, IpamConfig } from '../../../plugins/attachment.ts'
import { heard, silent } from '../logs.ts'
import { podContext, stillHost } from './context.ts'

const subnet = parsePrefix('10.20.0.0/24') ?? assert.fail()
const sets = rangeSets([[{ subnet }]])
const who = (containerId: string) => ({ network: 'net1', containerId, ifname: 'eth0' })

let dataDir = ''
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'weft-vanished-'))
})
afterEach(() => rmSync(dataDir, { recursive: true, force: true }))

/**
 * What these verbs stand on: reservations on a real directory, a host that is a Map, and a clock that is set by hand.
 */
function nodeWithPods() {
  const lines: string[] = []
  const clock = { now: 0 }
  const observed = new Map(stateOf([]))
  const context = podContext({
    host: stillHost(observed),
    log: heard((_level, _fields, message) => lines.push(message)),
    now: () => clock.now
  })
  return { context, reservations: context.networks.reservations(dataDir, 'net1'), lines, clock, observed }
}

async function vanishedPod(node: ReturnType<typeof nodeWithPods>, containerId: string) {
  await node.reservations.reserve(who(containerId), sets)
  const vanished = { ...who(containerId), because: `pod ${containerId}`, dataDir, since: node.clock.now }
  node.context.attachments.vanished.set(`pod net1 ${containerId} eth0`, vanished)
}

const held = async (reservations: Reservations) => (await reservations.list()).map(({ ip }) => formatIp(ip)).sort()

describe('addresses of a vanished pod', () => {
  test('are freed once the grace is over, and not before; the reason is logged once and counted', async () => {
    const node = nodeWithPods()
    await vanishedPod(node, 'a')
    await node.reservations.reserve(who('foreign'), sets)
    node.clock.now = 59_000
    assert.equal(await releaseVanished(node.context, 60_000), 0)
    assert.deepEqual(await held(node.reservations), ['10.20.0.2', '10.20.0.3'])
    node.clock.now = 60_000
    let changes = 0
    node.context.attachments.onChanged = () => void changes++
    assert.equal(await releaseVanished(node.context, 60_000), 1)
    assert.equal(changes, 1)
    assert.deepEqual(await held(node.reservations), ['10.20.0.3'])
    assert.equal(await releaseVanished(node.context, 0), 0)
    assert.deepEqual([node.context.attachments.freed.vanished, node.lines.length], [1, 1])
  })

  test('stay when its link is there again, by whatever name, when it was added again, and while a verb on it is under way', async () => {
    const node = nodeWithPods()
    const { attachments } = node.context
    for (const id of ['back', 'renamed', 'added', 'busy']) await vanishedPod(node, id)
    const link = { kind: 'link', up: true, form: { type: 'veth' } } as const
    for (const each of [
      { ...link, name: hostName(who('back')) },
      { ...link, name: 'other', alias: aliasOf(who('renamed'), undefined) }
    ] satisfies KernelObject[])
      node.observed.set(keyOf(each), each)
    attachments.set({ ...who('added'), link: 'x', addresses: [], because: 'again' } satisfies Known)
    const { promise, resolve } = Promise.withResolvers<void>()
    const busy = attachments.inTurn(who('busy'), () => promise)
    assert.equal(await releaseVanished(node.context, 0), 0)
    resolve()
    await busy
    assert.equal(await releaseVanished(node.context, 0), 1)
    assert.deepEqual(await held(node.reservations), ['10.20.0.2', '10.20.0.3', '10.20.0.4'])
  })

  test('are given again to a container that is started again without a DEL, unless its link was only renamed', async () => {
    const node = nodeWithPods()
    await vanishedPod(node, 'again')
    const ipam: IpamConfig = { dataDir, requested: [], ranges: [[{ subnet }]], routes: [] }
    const added = { ...who('again'), isStandalone: true, interface: { kind: 'none' }, ipam } as unknown as Attachment
    const place = placeForAdd(node.context, added)
    const link: KernelObject = { kind: 'link', name: 'other', alias: aliasOf(who('again'), undefined) }
    node.observed.set(keyOf(link), link)
    await assert.rejects(allocate(node.context, added, ipam, place), { code: 'ADDRESS_HELD' })
    node.observed.delete(keyOf(link))
    const [address] = await allocate(node.context, added, ipam, place)
    assert.deepEqual(
      [address && formatIp(address.prefix.ip), await held(node.reservations)],
      ['10.20.0.2', ['10.20.0.2']]
    )
  })

  test('are tried again when they cannot be freed now', async () => {
    const node = nodeWithPods()
    await vanishedPod(node, 'a')
    const lock = () => Promise.reject(new Error('EROFS'))
    const networks = new Networks(() => ({ lock, boot: { id: 'boot', since: 0 } }))
    assert.equal(await releaseVanished({ ...node.context, networks }, 0), 0)
    assert.match(node.lines.join(), /can't be freed yet/)
    assert.equal(await releaseVanished(node.context, 0), 1)
  })

  test('of another network are not touched when only one is meant', async () => {
    const node = nodeWithPods()
    await vanishedPod(node, 'a')
    assert.equal(await releaseVanished(node.context, 0, ({ network }) => network === 'net2'), 0)
    assert.equal(node.context.attachments.vanished.size, 1)
  })
})

describe('the notes', () => {
  const path = () => join(dataDir, 'pods.json')

  test('tell the next weftd what there was: pods, and those that have vanished', async () => {
    const node = nodeWithPods()
    const { attachments } = node.context
    {
      using _notes = keepPodsFile(path(), attachments, silent)
      const address = parseIp('10.20.0.9') ?? assert.fail()
      attachments.set({ ...who('pod'), link: 'veth1', addresses: [address], because: 'pod a/b', dataDir })
      await vanishedPod(node, 'gone')
    }
    assert.equal(statSync(path()).mode & 0o777, 0o600)
    assert.deepEqual(readPodsFile(path(), silent), [
      { ...who('pod'), because: 'pod a/b', dataDir },
      { ...who('gone'), because: 'pod gone', dataDir }
    ])
  })

  test('may have null for a directory that is not known', () => {
    const [a, b] = [
      { ...who('a'), because: 'pod a' },
      { ...who('b'), because: 'pod b', dataDir }
    ]
    writeFileSync(path(), JSON.stringify([{ ...a, dataDir: null }, b]))
    assert.deepEqual(readPodsFile(path(), silent), [a, b])
  })

  test('make a pod without a link a vanished one, whose address is freed after the grace', async () => {
    const node = nodeWithPods()
    await node.reservations.reserve(who('gone'), sets)
    await rebuild(node.context, dataDir, [{ ...who('gone'), because: 'pod gone', dataDir }])
    node.clock.now = 1_000
    assert.equal(await releaseVanished(node.context, 1_001), 0)
    assert.equal(await releaseVanished(node.context, 1_000), 1)
  })

  test('are not missed when there are none, and of no use, with a warning, when they are spoiled', () => {
    assert.deepEqual(readPodsFile(path(), silent), [])
    for (const spoiled of ['', '{', '{}', '[1]', '[{"network":5}]', '[{"network":"a"}]']) {
      writeFileSync(path(), spoiled)
      const warnings: string[] = []
      const notes = readPodsFile(path(), { ...silent, warn: (_, message) => void warnings.push(message) })
      assert.deepEqual([notes, warnings.length], [[], 1], spoiled)
    }
    assert.equal(readFileSync(path(), 'utf8'), '[{"network":"a"}]')
  })
})

test('a directory of networks that cannot be read is logged, and weftd goes on', async () => {
  writeFileSync(join(dataDir, BOOT_DIRECTORY), '')
  const { context, lines } = nodeWithPods()
  await emptyAfterReboot(context, dataDir)
  assert.deepEqual(lines, ["the reservations can't be read yet"])
})
