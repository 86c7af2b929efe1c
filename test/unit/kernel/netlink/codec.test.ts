// The bytes of rtnetlink: what is encoded decodes to the same object, and no bytes at all can crash the decoder.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  linkIdentity,
  portFlags,
  routingChange
} from '../../../../daemon/kernel/netlink/decode.ts'
import * as encode from '../../../../daemon/kernel/netlink/encode.ts'
import {
  MalformedMessage,
  type Message,
  readAcknowledgement,
  readMessages
} from '../../../../daemon/kernel/netlink/message.ts'
import { decodeRule } from '../../../../daemon/kernel/netlink/rules.ts'
import type { Address, FdbEntry, Link, Mac, Neighbour, NeighbourProxy, Route } from '../../../../daemon/state/object.ts'
import { sameObject } from '../../../../daemon/state/object.ts'
import { textOf } from '../../../../daemon/state/text.ts'
import { formatPrefix, type Ip, network, type Prefix, parseIp, parsePrefix } from '../../../../ipam/address.ts'

const devices = ['lo', 'eth0', 'weft.1', 'cni0']
const resolve: encode.Resolve = { index: (device) => devices.indexOf(device) + 1, netns: () => 99 }
const nameOf = (index: number) => devices[index - 1]

const family = fc.constantFrom(4 as const, 6 as const)
const ipOf = (of: 4 | 6): fc.Arbitrary<Ip> =>
  fc.bigInt({ min: 0n, max: of === 4 ? 2n ** 32n - 1n : 2n ** 128n - 1n }).map((value) => ({ family: of, value }))
const ip = family.chain(ipOf)
const prefixOf = (of: 4 | 6): fc.Arbitrary<Prefix> =>
  fc.tuple(ipOf(of), fc.nat(of === 4 ? 32 : 128)).map(([address, length]) => ({ ip: address, length }))
/** Objects with the usual prototype, as deepEqual wants them. */
const plain = <T>(made: fc.Arbitrary<T>): fc.Arbitrary<T> => made.map((object) => ({ ...object }))
const device = fc.constantFrom(...devices)
const mac = fc.uint8Array({ minLength: 6, maxLength: 6 }).map(
  (bytes) =>
    Buffer.from(bytes)
      .toString('hex')
      .replace(/..(?=.)/g, '$&:') as Mac
)
const u32 = fc.nat(0xffff_ffff)

/** The message as the kernel would send it back. */
function only(bytes: Buffer): Message {
  const [message, ...rest] = readMessages(bytes)
  assert.ok(message !== undefined && rest.length === 0)
  return message
}

test('a route decodes to what was encoded, in both families', () => {
  const route: fc.Arbitrary<Route> = family.chain((of) =>
    fc.record(
      {
        kind: fc.constant('route' as const),
        table: fc.integer({ min: 1, max: 0xffff_fffe }),
        destination: prefixOf(of),
        metric: u32,
        type: fc.constant('unicast' as const),
        device,
        gateway: ip,
        source: ipOf(of),
        onlink: fc.boolean(),
        scope: fc.nat(255),
        protocol: fc.nat(255),
        mtu: fc.integer({ min: 68, max: 65_535 })
      },
      { requiredKeys: ['kind', 'table', 'destination', 'metric', 'type', 'protocol'] }
    )
  )
  fc.assert(
    fc.property(route, (wanted) => {
      const decoded = decodeRoute(only(encode.putRoute(wanted, resolve)), nameOf)
      const expected = { ...wanted, destination: network(wanted.destination) }
      assert.ok(decoded !== undefined && sameObject(expected, decoded), `${formatPrefix(wanted.destination)}`)
    })
  )
})

test('a route with several next hops has each of them, also one by a gateway of the other family', () => {
  const wanted: Route = {
    ...({ kind: 'route', table: 254, destination: parsePrefix('0.0.0.0/0') ?? assert.fail(), metric: 0 } as const),
    ...({ type: 'unicast', protocol: 186 } as const)
  }
  // RTA_MULTIPATH of `nexthop via 10.0.1.1 dev eth0 nexthop via inet6 fe80::1 dev weft.1`, as the kernel sends it.
  const hop = (index: number, type: number, value: string) => {
    const gateway = Buffer.from(value, 'hex')
    const attribute = Buffer.alloc(4 + ((gateway.length + 3) & ~3))
    attribute.writeUInt16LE(4 + gateway.length, 0)
    attribute.writeUInt16LE(type, 2)
    gateway.copy(attribute, 4)
    const head = Buffer.alloc(8)
    head.writeUInt16LE(8 + 4 + gateway.length, 0)
    head.writeInt32LE(index, 4)
    return Buffer.concat([head, attribute])
  }
  const hops = Buffer.concat([hop(1, 5, '0a000101'), hop(2, 18, `0a00fe80${'00'.repeat(13)}01`)])
  const message = only(encode.putRoute(wanted, resolve))
  const header = Buffer.alloc(4)
  header.writeUInt16LE(4 + hops.length, 0)
  header.writeUInt16LE(9, 2)
  const read = (bytes: Buffer) =>
    decodeRoute({ ...message, body: Buffer.concat([message.body, header, bytes]) }, nameOf)
  const decoded = read(hops)
  assert.equal(decoded?.device, undefined)
  assert.deepEqual(decoded?.nextHops, [
    { device: nameOf(1), gateway: parseIp('10.0.1.1') },
    { device: nameOf(2), gateway: parseIp('fe80::1') }
  ])
  assert.match(
    textOf(decoded as Route),
    /^route default nexthop via 10\.0\.1\.1 dev \S+ nexthop via fe80::1 dev \S+ proto/
  )
  const broken = Buffer.from(hops)
  broken.writeUInt16LE(4, 0)
  assert.throws(() => read(broken), /a next hop of 4 octets/)
})

test('a notification about routing names the destination that another program changed, and nothing of ours', () => {
  const destination = parsePrefix('10.1.0.0/16') ?? assert.fail()
  const route: Route = { kind: 'route', table: 52, destination, metric: 7, type: 'unicast', protocol: 4 }
  const change = (over: Partial<Route>) => routingChange(only(encode.putRoute({ ...route, ...over }, resolve)))
  assert.deepEqual(change({}), { destination })
  assert.deepEqual(change({ destination: parsePrefix('::/0') ?? assert.fail() }), { destination: parsePrefix('::/0') })
  assert.equal(change({ protocol: 87 }), undefined)
  assert.equal(change({ table: 255 }), undefined, 'the addresses of this host')
  const rule = { type: 32, flags: 0, sequence: 0, port: 0, body: Buffer.alloc(12) }
  assert.deepEqual(routingChange(rule), {})
})

test('a policy rule reads as ip(8) prints it, and one that looks nothing up is left out', () => {
  const rule = (action: number, attributes: string) =>
    decodeRule({
      ...{ type: 32, flags: 0, sequence: 0, port: 0 },
      body: Buffer.from(`02100000340000${action.toString(16).padStart(2, '0')}00000000${attributes}`, 'hex')
    })
  const priority = '0800060096140000'
  assert.deepEqual(rule(1, priority), { priority: 5270, table: 52, text: '5270: from all lookup 52' })
  assert.equal(rule(1, `${priority}080001000af40000`)?.text, '5270: from all to 10.244.0.0/16 lookup 52')
  assert.equal(
    rule(1, `${priority}08000f00fe00000008000a00000008000800100000 00ff00`.replaceAll(' ', ''))?.text,
    '5270: from all fwmark 0x80000/0xff0000 lookup main'
  )
  assert.equal(rule(6, priority), undefined)
})

test('a route without a device keeps its type', () => {
  for (const type of ['blackhole', 'unreachable', 'prohibit'] as const) {
    for (const text of ['10.1.0.0/16', 'fd00:1::/64', '0.0.0.0/0', '::/0']) {
      const destination = parsePrefix(text)
      assert.ok(destination)
      const wanted: Route = { kind: 'route', table: 254, destination, metric: 7, type, protocol: 87 }
      assert.ok(
        sameObject(wanted, decodeRoute(only(encode.putRoute(wanted, resolve)), nameOf) ?? { ...wanted, metric: 0 })
      )
    }
  }
})

test('an address keeps its host bits and flags', () => {
  const address: fc.Arbitrary<Address> = family.chain((of) =>
    fc.record({
      kind: fc.constant('address' as const),
      device,
      prefix: prefixOf(of),
      scope: fc.nat(255),
      nodad: fc.boolean(),
      noPrefixRoute: fc.boolean()
    })
  )
  fc.assert(
    fc.property(plain(address), (wanted) =>
      assert.deepEqual(decodeAddress(only(encode.putAddress(wanted, resolve)), nameOf), wanted)
    )
  )
})

test('neighbours, proxies and forwarding entries are distinguished and decode as permanent', () => {
  const neighbour: fc.Arbitrary<Neighbour> = fc.record({ kind: fc.constant('neighbour' as const), device, ip, mac })
  const fdb: fc.Arbitrary<FdbEntry> = fc.record({ kind: fc.constant('fdb' as const), device, mac, destination: ip })
  fc.assert(
    fc.property(plain(neighbour), (object) =>
      assert.deepEqual(decodeNeighbour(only(encode.putNeighbour(object, resolve)), nameOf), { permanent: true, object })
    )
  )
  const proxy: fc.Arbitrary<NeighbourProxy> = fc.record({
    ...{ kind: fc.constant('proxy' as const), device, ip, protocol: fc.integer({ min: 1, max: 255 }) }
  })
  fc.assert(
    fc.property(plain(proxy), (object) =>
      assert.deepEqual(decodeNeighbour(only(encode.putProxy(object, resolve)), nameOf), { permanent: true, object })
    )
  )
  fc.assert(
    fc.property(plain(fdb), (object) =>
      assert.deepEqual(decodeNeighbour(only(encode.putFdbEntry(object, resolve)), nameOf), { permanent: true, object })
    )
  )
})

test('a vxlan link decodes to what was encoded, with the tunnel in either family', () => {
  const link: fc.Arbitrary<Link> = fc.record({
    kind: fc.constant('link' as const),
    name: fc.stringMatching(/^[a-z][a-z0-9.]{0,14}$/),
    form: fc.record({
      type: fc.constant('vxlan' as const),
      vni: fc.nat(0xff_ffff),
      port: fc.nat(65_535),
      local: ip,
      parent: device,
      learning: fc.boolean(),
      gbp: fc.boolean()
    }),
    up: fc.boolean(),
    mtu: fc.integer({ min: 68, max: 65_535 }),
    mac,
    master: fc.constantFrom('', 'cni0'),
    group: fc.nat(0x7fff_ffff)
  })
  fc.assert(
    fc.property(link, (wanted) =>
      assert.ok(sameObject(wanted, decodeLink(only(encode.createLink(wanted, resolve)), nameOf)))
    )
  )
})

test('alias and hairpin are in the message after creation', () => {
  const link: Link = {
    kind: 'link',
    name: 'veth1',
    form: { type: 'veth', peer: { name: 'eth0', sandbox: '/x' } },
    alias: 'weft pod ä',
    hairpin: true
  }
  const birth = decodeLink(only(encode.createLink(link, resolve)), nameOf)
  assert.equal(birth.alias, '')
  assert.equal(birth.hairpin, undefined)
  const later = encode.afterCreation(link, resolve)
  assert.ok(later)
  const { alias, hairpin } = decodeLink(only(later), nameOf)
  assert.deepEqual({ alias, hairpin }, { alias: 'weft pod ä', hairpin: true })
  assert.equal(encode.afterCreation({ kind: 'link', name: 'veth1' }, resolve), undefined)
})

test('a removal of an IPv4 route names protocol, device and gateway, so that it can match no other route to the destination', () => {
  const [destination, gateway] = [parsePrefix('10.1.0.0/16'), parseIp('10.9.0.1')]
  assert.ok(destination && gateway)
  const route: Route = {
    kind: 'route',
    table: 254,
    destination,
    metric: 0,
    type: 'unicast',
    device: 'eth0',
    gateway,
    protocol: 87
  }
  const decoded = decodeRoute(only(encode.removeRoute(route, resolve)), nameOf)
  assert.deepEqual([decoded?.protocol, decoded?.device, decoded?.gateway], [87, 'eth0', gateway])
})

test('any bytes decode to something or to a MalformedMessage', () => {
  const read = (bytes: Buffer) => {
    for (const message of readMessages(bytes)) {
      for (const decode of [
        decodeLink,
        decodeAddress,
        decodeRoute,
        decodeNeighbour,
        linkIdentity,
        portFlags,
        readAcknowledgement
      ]) {
        try {
          decode(message, nameOf)
        } catch (error) {
          assert.ok(error instanceof MalformedMessage, String(error))
        }
      }
    }
  }
  const sample = encode.putRoute(
    {
      kind: 'route',
      table: 254,
      destination: { ip: { family: 4, value: 0x0a000000n }, length: 8 },
      metric: 1,
      type: 'unicast',
      device: 'eth0',
      protocol: 87,
      mtu: 1400
    },
    resolve
  )
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((random) => Buffer.from(random)),
    // A true header in front of anything, a true message with octets changed, and a true message cut off.
    fc.tuple(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 16, max: 31 })).map(([body, type]) => {
      const header = Buffer.alloc(16)
      header.writeUInt32LE(16 + body.length, 0)
      header.writeUInt16LE(type, 4)
      return Buffer.concat([header, body])
    }),
    fc.array(fc.tuple(fc.nat(sample.length - 17), fc.nat(255)), { maxLength: 6 }).map((changes) => {
      const changed = Buffer.from(sample)
      for (const [at, octet] of changes) changed[16 + at] = octet
      return changed
    }),
    fc.nat(sample.length).map((length) => sample.subarray(0, length))
  )
  fc.assert(
    fc.property(bytes, (input) => {
      try {
        read(input)
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error
        assert.ok(error instanceof MalformedMessage, String(error))
      }
    }),
    { numRuns: 2_000 }
  )
})

test('an acknowledgement yields errno and the kernel sentence behind the capped request', () => {
  const sentence = Buffer.from('Nexthop has invalid gateway\0')
  const body = Buffer.alloc(4 + 16 + 4 + sentence.length)
  body.writeInt32LE(-101, 0)
  body.writeUInt32LE(60, 4)
  body.writeUInt16LE(4 + sentence.length, 20)
  body.writeUInt16LE(1, 22)
  sentence.copy(body, 24)
  const message: Message = { type: 2, flags: 0x300, sequence: 1, port: 0, body }
  assert.deepEqual(readAcknowledgement(message), { errno: 101, sentence: 'Nexthop has invalid gateway' })
  assert.deepEqual(readAcknowledgement({ ...message, flags: 0x100 }), { errno: 101 })
})
