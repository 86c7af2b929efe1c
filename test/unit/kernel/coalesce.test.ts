// Which link notifications of a batch are processed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { coalesce } from '../../../daemon/kernel/coalesce.ts'
import type { Message } from '../../../daemon/kernel/netlink/message.ts'
import { AF_BRIDGE, IFF_UP, IFLA, RTM } from '../../../daemon/kernel/netlink/uapi.ts'

type Notification = { readonly message?: Message; readonly name: string }

function notification(name: string, type: number, index: number, { up = true, af = 0 } = {}): Notification {
  const body = Buffer.alloc(16)
  body.writeUInt8(af, 0)
  body.writeInt32LE(index, 4)
  body.writeUInt32LE(up ? IFF_UP : 0, 8)
  return { name, message: { type, flags: 0, sequence: 0, port: 0, body } }
}

const names = (batch: readonly Notification[], known: readonly number[] = [5]) =>
  coalesce(batch, (index) => known.includes(index)).map(({ name }) => name)

const { newLink, deleteLink, newAddress } = RTM

test('of several messages about one link the last is processed', () => {
  assert.deepEqual(
    names([notification('a', newLink, 5), notification('b', newLink, 5), notification('c', newLink, 5)]),
    ['c']
  )
})

test('the first message about an unknown link is processed, since later ones name it by index', () => {
  const batch = [
    notification('a', newLink, 9),
    notification('address', newAddress, 9),
    notification('b', newLink, 9),
    notification('c', newLink, 9)
  ]
  assert.deepEqual(names(batch), ['a', 'address', 'c'])
})

test('a link that went down and came up again is processed as both', () => {
  const batch = [
    notification('up', newLink, 5),
    notification('down', newLink, 5, { up: false }),
    notification('again', newLink, 5)
  ]
  assert.deepEqual(names(batch), ['up', 'down', 'again'])
})

test('of a known link that was deleted only the deletion is processed, and what came after it', () => {
  const batch = [
    notification('down', newLink, 5, { up: false }),
    notification('gone', deleteLink, 5, { up: false }),
    notification('new', newLink, 5)
  ]
  assert.deepEqual(names(batch), ['gone', 'new'])
})

test('messages about a link and about it as a port are separate series, and those of two links', () => {
  const batch = [
    notification('port', newLink, 5, { af: AF_BRIDGE }),
    notification('link', newLink, 5),
    notification('other', newLink, 6),
    notification('left the bridge', deleteLink, 5, { af: AF_BRIDGE })
  ]
  assert.deepEqual(names(batch, [5, 6]), ['link', 'other', 'left the bridge'])
})

test('of a port and of a bridge itself, messages with VLANs and without any do not repeat each other', () => {
  const withVlans = (name: string): Notification => {
    const one = notification(name, newLink, 5, { af: AF_BRIDGE })
    const body = Buffer.concat([one.message?.body ?? Buffer.alloc(0), Buffer.of(4, 0, IFLA.afSpec, 0)])
    return { name, ...(one.message && { message: { ...one.message, body } }) }
  }
  const bare = notification('bare', newLink, 5, { af: AF_BRIDGE })
  assert.deepEqual(names([withVlans('a'), withVlans('b'), bare, bare]), ['b', 'bare'])
  assert.deepEqual(names([bare, withVlans('a'), withVlans('b')]), ['bare', 'b'])
})

test('a message that is not about a link, or too short, is processed', () => {
  const short: Notification = {
    name: 'short',
    message: { type: newLink, flags: 0, sequence: 0, port: 0, body: Buffer.alloc(4) }
  }
  assert.deepEqual(names([short, { name: 'firewall' }, short]), ['short', 'firewall', 'short'])
})
