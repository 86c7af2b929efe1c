// Notifications applied to the cache, also where the kernel sends none.
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

test('a route that is created and deleted is reported under its key', () => {
  const state = observed()
  const made = state.apply(message(encode.putRoute(route, resolve)))
  assert.deepEqual(
    made.changed.map(({ key, object }) => [key, object?.kind]),
    [[keyOf(route), 'route']]
  )
  const deleted = state.apply(message(encode.removeRoute(route, resolve)))
  assert.deepEqual(deleted.changed, [{ key: keyOf(route), object: undefined }])
  assert.deepEqual(state.apply(message(encode.removeRoute(route, resolve))).changed, [])
})

test('the deletion of a device reports all its objects as deleted', () => {
  const entry: KernelObject = { kind: 'fdb', device: 'weft.1', mac: '02:00:00:00:00:01' as Mac, destination: gateway }
  const state = observed([route, entry])
  const update = state.apply(message(encode.changeLink('weft.1', {}, resolve), { type: 17 }, 7))
  assert.deepEqual(new Set(update.changed.map(({ key }) => key)), new Set([keyOf(route), keyOf(entry), 'link weft.1']))
  assert.ok(update.changed.every(({ object }) => object === undefined))
  assert.equal(update.dumpBecause, undefined)
  assert.deepEqual([...state.state().keys()], ['link eth0'])
})

test('a device with routes that goes down requires a dump, one without or one being deleted does not', () => {
  const down = (group?: number) =>
    message(encode.changeLink('weft.1', { up: false, ...(group !== undefined && { group }) }, resolve), {}, 7)
  assert.match(observed([route]).apply(down()).dumpBecause ?? '', /weft\.1 went down/)
  assert.equal(observed().apply(down()).dumpBecause, undefined)
  assert.equal(observed([route]).apply(down(DOOMED_GROUP)).dumpBecause, undefined)
})

test('a removed IPv4 address requires a dump when its device has routes', () => {
  const prefix = parsePrefix('10.244.0.0/32')
  assert.ok(prefix)
  const gone = message(encode.removeAddress({ kind: 'address', device: 'weft.1', prefix }, resolve))
  assert.match(observed([route]).apply(gone).dumpBecause ?? '', /lost an address/)
  assert.equal(observed().apply(gone).dumpBecause, undefined)
})

test('the end of forwarding on the host requires a dump; its start, or its end on one device, does not', () => {
  // struct netconfmsg, then NETCONFA_IFINDEX and NETCONFA_FORWARDING.
  const netconf = (index: number, forwarding: number): Message => {
    const body = Buffer.from([2, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 0])
    body.writeInt32LE(index, 8)
    body.writeInt32LE(forwarding, 16)
    return { type: 80, flags: 0, sequence: 0, port: 0, body }
  }
  assert.match(observed().apply(netconf(-1, 0)).dumpBecause ?? '', /no longer forwards/)
  assert.equal(observed().apply(netconf(-1, 1)).dumpBecause, undefined)
  assert.equal(observed().apply(netconf(7, 0)).dumpBecause, undefined)
})

test('a renamed link is deleted under its old name and created under its new one', () => {
  const update = observed([route]).apply(message(encode.changeLink('eth9', { up: true }, resolve), {}, 2))
  assert.deepEqual(
    update.changed.map(({ key, object }) => [key, object?.kind]),
    [
      ['link eth0', undefined],
      ['link eth9', 'link']
    ]
  )
  assert.match(update.dumpBecause ?? '', /eth0 became eth9/)
})

test('a permanent neighbour that becomes another kind counts as deleted', () => {
  const neighbour: KernelObject = { kind: 'neighbour', device: 'weft.1', ip: gateway, mac: '02:00:00:00:00:01' as Mac }
  const learned = message(encode.putNeighbour(neighbour, resolve))
  learned.body.writeUInt16LE(2, 8)
  assert.deepEqual(observed([neighbour]).apply(learned).changed, [{ key: keyOf(neighbour), object: undefined }])
})

test('an object of no interest is not reported, and replaces one that was of interest', () => {
  const state = new Cache((object) => object.kind === 'route' && object.protocol === 87)
  state.restart(new Map([[7, link('weft.1', 7)]]))
  state.put(route)
  const foreign = { ...route, protocol: 4 }
  assert.deepEqual(state.apply(message(encode.putRoute(foreign, resolve))).changed, [
    { key: keyOf(route), object: undefined }
  ])
  assert.deepEqual(state.apply(message(encode.putRoute(foreign, resolve))).changed, [])
})

test('a bridge port message changes the hairpin flag only, and one that the port left the bridge deletes nothing', () => {
  const state = observed()
  const left = message(encode.changeLink('eth0', {}, resolve), { type: 17 }, 2)
  left.body[0] = 7
  assert.deepEqual(state.apply(left).changed, [])
  assert.ok(state.state().has(keyOf(link('eth0', 2))))
})

test('an object equivalent to a desired one is that very object; a different one is the kernel’s', () => {
  const wanted: Route = { ...route, because: 'lease 10.244.3.0-24' }
  const state = new Cache(
    () => true,
    (key) => (key === keyOf(wanted) ? wanted : undefined)
  )
  state.restart(new Map([[7, link('weft.1', 7)]]))
  const changedTo = (object: Route) => state.apply(message(encode.putRoute(object, resolve))).changed[0]?.object
  assert.equal(changedTo(route), wanted)
  assert.equal(state.get(keyOf(wanted)), wanted)
  for (const difference of [{ protocol: 4 }, { scope: 253 }, { onlink: true }]) {
    const other = changedTo({ ...route, ...difference })
    assert.notEqual(other, wanted)
    assert.deepEqual(other, { ...other, ...difference })
  }
})

test('of several IPv4 routes with one destination and metric the first counts, as the kernel has them', () => {
  const state = observed()
  const foreign: Route = { ...route, device: 'eth0', protocol: 4 }
  const at = (flags: number, one: Route) => state.apply(message(encode.putRoute(one, resolve), { flags })).changed
  const gone = (one: Route) => state.apply(message(encode.removeRoute(one, resolve)))
  const first = () => (state.get(keyOf(route)) as Route | undefined)?.protocol
  const [added, before, behind, instead] = [0x600, 0x400, 0xc00, 0x100]
  at(added, route)
  assert.deepEqual(at(behind, foreign), [], 'one behind ours is not used')
  assert.deepEqual(gone(foreign), { changed: [] })
  assert.equal(first(), 87)
  assert.equal(at(before, foreign).length, 1)
  assert.equal(first(), 4)
  at(before, foreign)
  assert.equal(gone(foreign).changed[0]?.object?.kind, 'route', 'ours is the first again')
  assert.equal(first(), 87)
  at(before, foreign)
  assert.deepEqual(gone(route).changed, [], 'ours was not used')
  assert.equal(at(instead, route).length, 1)
  assert.deepEqual(gone(route).changed, [{ key: keyOf(route), object: undefined }])
  state.putListed(foreign)
  state.putListed(route)
  assert.equal(first(), 4, 'a dump lists the first one first')
  assert.deepEqual(
    state.apply(message(encode.changeLink('eth0', {}, resolve), { type: 17 }, 2)).dumpBecause,
    'with eth0 went routes that others were behind'
  )
})

test('a route for a type of service is another one', () => {
  const state = observed([route])
  state.apply(message(encode.putRoute({ ...route, tos: 16, protocol: 4 }, resolve)))
  assert.equal((state.get(keyOf(route)) as Route).protocol, 87)
  assert.equal(keyOf({ ...route, tos: 16 }), `${keyOf(route)} tos 16`)
})
