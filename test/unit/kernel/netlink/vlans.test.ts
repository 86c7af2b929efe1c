// The bytes of a port's VLANs, and the notifications from which the cache learns them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cache } from '../../../../daemon/kernel/cache.ts'
import { type Message, MessageWriter, readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { AF_BRIDGE, RTM } from '../../../../daemon/kernel/netlink/uapi.ts'
import { decodeVlans, putVlans } from '../../../../daemon/kernel/netlink/vlans.ts'
import { keyOf, type Link, type PortVlans } from '../../../../daemon/state/object.ts'
import { parseRanges } from '../../../../daemon/state/vlans.ts'

const ranges = (text: string) => parseRanges(text) ?? []
const resolve = { index: () => 7, netns: () => -1 }
const nameOf = (index: number) => (index === 7 ? 'veth1' : undefined)
const vlans = (untagged: string, tagged: string, more: Partial<PortVlans> = {}): PortVlans => ({
  ...{ kind: 'vlans', device: 'veth1', untagged: ranges(untagged), tagged: ranges(tagged) },
  ...more
})
const messages = (wanted: PortVlans): readonly Message[] =>
  putVlans(wanted, resolve).flatMap((bytes) => readMessages(Buffer.from(bytes)))

test('what is set decodes to the same VLANs', () => {
  for (const wanted of [
    vlans('100', '', { pvid: 100 }),
    vlans('', '10-20,30'),
    vlans('1-5', '7-9,4094', { pvid: 3 }),
    vlans('', '7-9', { pvid: 8 }),
    vlans('1,100', '', { pvid: 1 })
  ]) {
    const [set, ...rest] = messages(wanted)
    assert.ok(set)
    assert.deepEqual([set.type, rest.length], [RTM.setLink, 0])
    assert.deepEqual(decodeVlans(set, nameOf), wanted)
  }
})

test('where a port is to have no others, they are deleted first', () => {
  const [gone, set] = messages(vlans('100', '', { pvid: 100, isExact: true }))
  assert.ok(gone && set)
  assert.deepEqual([gone.type, set.type], [RTM.deleteLink, RTM.setLink])
  assert.deepEqual(decodeVlans(gone, nameOf), vlans('', '1-99,101-4094'))
})

test('a message with too few octets is refused, one of an unknown device is none', () => {
  const [set] = messages(vlans('100', ''))
  assert.ok(set)
  assert.throws(() => decodeVlans({ ...set, body: set.body.subarray(0, 8) }, nameOf), { code: 'NETLINK_MALFORMED' })
  assert.throws(
    () =>
      decodeVlans(
        { ...set, body: Buffer.concat([set.body.subarray(0, 20), Buffer.of(6, 0, 2, 0, 0, 0, 0, 0)]) },
        nameOf
      ),
    {
      code: 'NETLINK_MALFORMED'
    }
  )
  assert.equal(
    decodeVlans(set, () => undefined),
    undefined
  )
})

test('a port loses its VLANs by a message without any, a bridge keeps its own', () => {
  const bare = (index: number, type: number = RTM.newLink): Message => {
    const bytes = new MessageWriter(type, 0).fixed([4, AF_BRIDGE], [4, index], [4, 1], [4, 0]).done()
    const [message] = readMessages(Buffer.from(bytes))
    return message ?? assert.fail()
  }
  const notified = (device: string, index: number, of: PortVlans): Message => {
    const [bytes] = putVlans({ ...of, device }, { ...resolve, index: () => index })
    const [message] = readMessages(Buffer.from(bytes ?? assert.fail()))
    return { ...(message ?? assert.fail()), type: RTM.newLink }
  }
  const link = (name: string, index: number, type: 'veth' | 'bridge'): Link => ({
    ...{ kind: 'link', name, index, form: { type } }
  })
  const cache = new Cache(() => true)
  cache.restart(new Map([link('veth1', 7, 'veth'), link('br1', 8, 'bridge')].map((each) => [each.index ?? 0, each])))
  const [port, own] = [keyOf(vlans('', '')), keyOf({ ...vlans('', ''), device: 'br1' })]
  const tagged = vlans('', '100')
  assert.deepEqual(cache.apply(notified('veth1', 7, tagged)).changed, [{ key: port, object: tagged }])
  assert.deepEqual(cache.apply(notified('veth1', 7, tagged)).changed, [])
  assert.deepEqual(cache.apply(bare(7)).changed, [{ key: port, object: vlans('', '') }])
  assert.deepEqual(cache.apply(bare(7, RTM.deleteLink)).changed, [{ key: port, object: undefined }])
  assert.deepEqual(cache.apply(notified('br1', 8, tagged)).changed, [
    { key: own, object: { ...tagged, device: 'br1' } }
  ])
  assert.deepEqual(cache.apply(bare(8)).changed, [])
})
