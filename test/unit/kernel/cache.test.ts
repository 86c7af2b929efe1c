// What notifications come to: the true state, also where the kernel keeps silent.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Cache } from '../../../daemon/kernel/cache.ts'
import * as encode from '../../../daemon/kernel/netlink/encode.ts'
import { type Message, readMessages } from '../../../daemon/kernel/netlink/message.ts'
import { type KernelObject, keyOf, type Link, type Mac, type Route } from '../../../daemon/state/object.ts'
import { DOOMED_GROUP } from '../../../daemon/state/ownership.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const link = (name: string, index: number, more: Partial<Link> = {}): Link => ({
  kind: 'link',
  name,
  index,
  up: true,
  form: { type: 'bridge' },
  master: '',
  alias: '',
  ...more
})
const indexes = new Map([
  ['weft.1', 7],
  ['eth0', 2]
])
const resolve: encode.Resolve = { index: (device) => indexes.get(device) ?? 0, netns: () => 0 }

function observed(objects: readonly KernelObject[] = []): Cache {
  const state = new Cache((object) => object.kind !== 'address')
  state.restart(new Map([link('eth0', 2), link('weft.1', 7)].map((one) => [one.index ?? 0, one])))
  for (const object of objects) state.put(object)
  return state
}

function message(bytes: Buffer, change: Partial<Message> = {}, index?: number): Message {
  const [first] = readMessages(Buffer.from(bytes))
  assert.ok(first)
  if (index !== undefined) first.body.writeInt32LE(index, 4)
  return { ...first, ...change }
}

const destination = parsePrefix('10.244.3.0/24')
const gateway = parseIp('10.244.3.0')
assert.ok(destination && gateway)
const route: Route = {
  kind: 'route',
  table: 254,
  destination,
  metric: 0,
  type: 'unicast',
  device: 'weft.1',
  gateway,
  protocol: 87
}

test('a route that is made and deleted is reported under its key', () => {
  const state = observed()
  const made = state.hear(message(encode.putRoute(route, resolve)))
  assert.deepEqual(
    made.changed.map(({ key, object }) => [key, object?.kind]),
    [[keyOf(route), 'route']]
  )
  const deleted = state.hear(message(encode.removeRoute(route, resolve)))
  assert.deepEqual(deleted.changed, [{ key: keyOf(route), object: undefined }])
  assert.deepEqual(state.hear(message(encode.removeRoute(route, resolve))).changed, [])
})

test('with a device all that hung on it is told as gone', () => {
  const entry: KernelObject = { kind: 'fdb', device: 'weft.1', mac: '02:00:00:00:00:01' as Mac, destination: gateway }
  const state = observed([route, entry])
  const news = state.hear(message(encode.changeLink('weft.1', {}, resolve), { type: 17 }, 7))
  assert.deepEqual(new Set(news.changed.map(({ key }) => key)), new Set([keyOf(route), keyOf(entry), 'link weft.1']))
  assert.ok(news.changed.every(({ object }) => object === undefined))
  assert.equal(news.dumpBecause, undefined)
  assert.deepEqual([...state.state().keys()], ['link eth0'])
})

test('a device with routes that goes down asks for a dump, one without or one being deleted does not', () => {
  const down = (group?: number) =>
    message(encode.changeLink('weft.1', { up: false, ...(group !== undefined && { group }) }, resolve), {}, 7)
  assert.match(observed([route]).hear(down()).dumpBecause ?? '', /weft\.1 went down/)
  assert.equal(observed().hear(down()).dumpBecause, undefined)
  assert.equal(observed([route]).hear(down(DOOMED_GROUP)).dumpBecause, undefined)
})

test('a lost IPv4 address asks for a dump when routes hang on its device', () => {
  const prefix = parsePrefix('10.244.0.0/32')
  assert.ok(prefix)
  const gone = message(encode.removeAddress({ kind: 'address', device: 'weft.1', prefix }, resolve))
  assert.match(observed([route]).hear(gone).dumpBecause ?? '', /lost an address/)
  assert.equal(observed().hear(gone).dumpBecause, undefined)
})

test('that this host no longer forwards asks for a dump; that it does, or one device does not, asks for none', () => {
  // struct netconfmsg, then NETCONFA_IFINDEX and NETCONFA_FORWARDING.
  const netconf = (index: number, forwarding: number): Message => {
    const body = Buffer.from([2, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0])
    body.writeInt32LE(index, 8)
    body.writeInt32LE(forwarding, 16)
    return { type: 80, flags: 0, sequence: 0, port: 0, body }
  }
  assert.match(observed().hear(netconf(-1, 0)).dumpBecause ?? '', /no longer forwards/)
  assert.equal(observed().hear(netconf(-1, 1)).dumpBecause, undefined)
  assert.equal(observed().hear(netconf(7, 0)).dumpBecause, undefined)
})

test('a renamed link goes under its old name and comes under its new one', () => {
  const news = observed([route]).hear(message(encode.changeLink('eth9', { up: true }, resolve), {}, 2))
  assert.deepEqual(
    news.changed.map(({ key, object }) => [key, object?.kind]),
    [
      ['link eth0', undefined],
      ['link eth9', 'link']
    ]
  )
  assert.match(news.dumpBecause ?? '', /eth0 became eth9/)
})

test('a permanent neighbour that becomes another kind counts as gone', () => {
  const neighbour: KernelObject = { kind: 'neighbour', device: 'weft.1', ip: gateway, mac: '02:00:00:00:00:01' as Mac }
  const learned = message(encode.putNeighbour(neighbour, resolve))
  learned.body.writeUInt16LE(2, 8)
  assert.deepEqual(observed([neighbour]).hear(learned).changed, [{ key: keyOf(neighbour), object: undefined }])
})

test('an object nobody is interested in is not told, and takes the place of one that was', () => {
  const state = new Cache((object) => object.kind === 'route' && object.protocol === 87)
  state.restart(new Map([[7, link('weft.1', 7)]]))
  state.put(route)
  const foreign = { ...route, protocol: 4 }
  assert.deepEqual(state.hear(message(encode.putRoute(foreign, resolve))).changed, [
    { key: keyOf(route), object: undefined }
  ])
  assert.deepEqual(state.hear(message(encode.putRoute(foreign, resolve))).changed, [])
})

test('a bridge port message changes the hairpin flag only, and one that the port left the bridge deletes nothing', () => {
  const state = observed()
  const left = message(encode.changeLink('eth0', {}, resolve), { type: 17 }, 2)
  left.body[0] = 7
  assert.deepEqual(state.hear(left).changed, [])
  assert.ok(state.state().has(keyOf(link('eth0', 2))))
})

test('what says the same as an object that is held is that object; what differs is what the kernel said', () => {
  const wanted: Route = { ...route, because: 'lease 10.244.3.0-24' }
  const state = new Cache(
    () => true,
    (key) => (key === keyOf(wanted) ? wanted : undefined)
  )
  state.restart(new Map([[7, link('weft.1', 7)]]))
  const told = (object: Route) => state.hear(message(encode.putRoute(object, resolve))).changed[0]?.object
  assert.equal(told(route), wanted)
  assert.equal(state.get(keyOf(wanted)), wanted)
  for (const difference of [{ protocol: 4 }, { scope: 253 }, { onlink: true }]) {
    const other = told({ ...route, ...difference })
    assert.notEqual(other, wanted)
    assert.deepEqual(other, { ...other, ...difference })
  }
})
