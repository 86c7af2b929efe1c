// The bytes of queueing disciplines and of conntrack: what is encoded decodes to the same, and other programs' objects
// are distinguished from Weft's.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deleteFlow, isStale, listFlows } from '../../../../daemon/kernel/netlink/conntrack.ts'
import { divisionOf, readClass, readFilter, readQdisc } from '../../../../daemon/kernel/netlink/htb.ts'
import { type Message, MessageWriter, readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { decodeTraffic, putQdisc, removeQdisc } from '../../../../daemon/kernel/netlink/qdisc.ts'
import { divided, fingerprintOf } from '../../../../daemon/state/division.ts'
import { type Discipline, type Division, type Qdisc, sameObject } from '../../../../daemon/state/object.ts'
import { parseIp, parsePrefix } from '../../../../ipam/address.ts'

const devices = ['lo', 'veth01234567', 'weft01234567']
const resolve = { index: (device: string) => devices.indexOf(device) + 1, netns: () => -1 }
const nameOf = (index: number) => devices[index - 1]
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

const messagesOf = (buffers: readonly Buffer[]): readonly Message[] => buffers.flatMap((bytes) => readMessages(bytes))
const decoded = (buffers: readonly Buffer[]) => messagesOf(buffers).map((message) => decodeTraffic(message, nameOf))

const bucket = (over: object = {}): Qdisc => ({
  kind: 'qdisc',
  device: 'veth01234567',
  parent: 'root',
  discipline: { type: 'tbf', rate: 1_000_000, burst: 100_000, limit: 125_000, ...over }
})
const redirect: Qdisc = {
  kind: 'qdisc',
  device: 'veth01234567',
  parent: 'ingress',
  discipline: { type: 'redirect', to: 'weft01234567' }
}

test('a token bucket is read back; its burst comes from the kernel as a time', () => {
  for (const rate of [1, 1_000_000, 0xffff_fffe, 0xffff_ffff, 10_000_000_000])
    assert.deepEqual(decoded(putQdisc(bucket({ rate }), undefined, resolve)), [bucket({ rate, burst: 0 })])
})

test('a redirection is read back from its filter, not from ingress as such', () => {
  assert.deepEqual(decoded(putQdisc(redirect, undefined, resolve)), [undefined, redirect])
})

test('another program’s discipline is removed first; a token bucket is changed in place', () => {
  const other: Discipline = { type: 'other', of: 'pfifo' }
  const types = (qdisc: Qdisc, instead?: Qdisc) => messagesOf(putQdisc(qdisc, instead, resolve)).map(({ type }) => type)
  assert.deepEqual(types(bucket(), { ...bucket(), discipline: other }), [37, 36])
  assert.deepEqual(types(bucket(), bucket({ rate: 5 })), [36])
  assert.deepEqual(types(redirect, { ...redirect, discipline: { type: 'redirect', to: 'lo' } }), [37, 36, 44])
  assert.throws(() => putQdisc({ ...bucket(), discipline: other }, undefined, resolve), /pfifo/)
  assert.equal(messagesOf([removeQdisc(bucket(), resolve)])[0]?.type, 37)
})

/** A message as the kernel would send it: struct tcmsg, then kind and options. */
const traffic = (type: number, handle: number, parent: number, kind: string, options = Buffer.alloc(0), index = 2) =>
  messagesOf([
    new MessageWriter(type, 0)
      .fixed([4, 0], [4, index], [4, handle], [4, parent], [4, 0])
      .text(1, kind)
      .bytes(2, options)
      .done()
  ])

test('other programs’ disciplines are distinguished from Weft’s, whatever their options', () => {
  // struct tc_fifo_qopt is no attribute.
  const [limit] = [Buffer.from([0xe8, 3, 0, 0])]
  const read = (...of: Parameters<typeof traffic>) => decodeTraffic(traffic(...of)[0] ?? assert.fail(), nameOf)
  assert.deepEqual(read(36, 0x8001_0000, 0xffff_ffff, 'pfifo', limit)?.discipline, { type: 'other', of: 'pfifo' })
  assert.deepEqual(read(36, 0xffff_0000, 0xffff_fff1, 'clsact')?.discipline, { type: 'other', of: 'clsact' })
  assert.equal(read(36, 0xffff_0000, 0xffff_fff1, 'ingress'), undefined)
  assert.deepEqual(read(37, 0xffff_0000, 0xffff_fff1, 'ingress')?.parent, 'ingress')
  assert.equal(read(36, 0, 0xffff_ffff, 'pfifo_fast', limit), undefined)
  assert.equal(read(36, 0x8002_0000, 0x0001_0001, 'pfifo', limit), undefined)
  assert.equal(read(36, 0x0001_0000, 0xffff_ffff, 'tbf', Buffer.alloc(0), 9), undefined)
  assert.throws(
    () => decodeTraffic({ type: 36, flags: 0, sequence: 0, port: 0, body: Buffer.alloc(8) }, nameOf),
    /octets/
  )
})

const division: Division = {
  ...{ rate: 1_000_000, burst: 100_000, limit: 125_000, side: 'source', limits: 'these' },
  subnets: ['10.0.0.0/8', '192.0.2.1/32', '0.0.0.0/0', 'fd00:1::/40', '::/0', '2001:db8::5/128'].map(prefix)
}

/** What a dump makes of these messages. */
function readBack(buffers: readonly Buffer[]): Division | undefined {
  const parts: Parameters<typeof divisionOf>[0] = { filters: [], isForeign: false }
  for (const message of messagesOf(buffers)) {
    if (message.type === 36) readQdisc(message, parts)
    if (message.type === 40) readClass(message, parts)
    if (message.type === 44) readFilter(message, parts)
  }
  return divisionOf(parts)
}

for (const over of [{}, { side: 'destination' }, { limits: 'others' }, { rate: 10_000_000_000 }] as const)
  test(`a division with ${JSON.stringify(over)} is read back from its parts, and from a notification by its fingerprint`, () => {
    const wanted = { ...division, ...over }
    const put: Qdisc = { ...bucket(), discipline: divided(wanted) }
    const messages = putQdisc(put, undefined, resolve)
    const found = readBack(messages) ?? assert.fail()
    assert.ok(Math.abs(found.burst - wanted.burst) <= wanted.rate * 64e-9 + 1, `${found.burst}`)
    assert.deepEqual({ ...found, burst: wanted.burst }, wanted)
    const [decodedPut] = decoded(messages)
    assert.deepEqual(decodedPut?.discipline, { type: 'htb', fingerprint: fingerprintOf(wanted) })
    assert.ok(decodedPut && sameObject(put, decodedPut))
  })

test('a division of which a part is missing or another’s is none', () => {
  const messages = putQdisc({ ...bucket(), discipline: divided(division) }, undefined, resolve)
  for (const [at] of messages.entries()) {
    const rest = readBack(messages.toSpliced(at, 1))
    assert.ok(rest === undefined || fingerprintOf(rest) !== fingerprintOf(division), `without ${at}`)
  }
  const other = putQdisc({ ...bucket(), discipline: divided({ ...division, side: 'destination' }) }, undefined, resolve)
  assert.equal(readBack([...messages, other[3] ?? assert.fail()]), undefined)
  const lost: Qdisc = { ...bucket(), discipline: { type: 'htb', fingerprint: 1 } }
  assert.throws(() => putQdisc(lost, undefined, resolve), /without its division/)
  const types = messagesOf(putQdisc({ ...bucket(), discipline: divided(division) }, lost, resolve)).map(
    ({ type }) => type
  )
  assert.deepEqual(types.slice(0, 4), [37, 36, 40, 36])
})

test('the fingerprint does not depend on the order of subnets, and on nothing else less', () => {
  const same = { ...division, subnets: division.subnets.toReversed(), burst: 5 }
  assert.equal(fingerprintOf(same), fingerprintOf(division))
  for (const over of [
    { rate: 5 },
    { limit: 5 },
    { side: 'destination' },
    { limits: 'others' },
    { subnets: division.subnets.slice(1) }
  ] as const)
    assert.notEqual(fingerprintOf({ ...division, ...over }), fingerprintOf(division), JSON.stringify(Object.keys(over)))
})

type Tuple = { readonly source: string; readonly destination: string; readonly from: number; readonly to: number }

/** A conntrack entry as the kernel sends it. */
function flow(original: Tuple, reply: Tuple, status: number, protocol = 17): Message {
  const six = original.source.includes(':')
  const address = (text: string) => {
    const { value } = ip(text)
    return Buffer.from(value.toString(16).padStart(six ? 32 : 8, '0'), 'hex')
  }
  const big = (value: number) =>
    Buffer.from([value >>> 24, value >>> 16, value >>> 8, value].map((octet) => octet & 255))
  const writer = new MessageWriter(0x100, 0).fixed([1, six ? 10 : 2], [1, 0], [2, 0])
  for (const [type, tuple] of [
    [1, original],
    [2, reply]
  ] as const) {
    writer.nest(type, (inner) =>
      inner
        .nest(1, (ips) => ips.bytes(six ? 3 : 1, address(tuple.source)).bytes(six ? 4 : 2, address(tuple.destination)))
        .nest(2, (proto) => proto.u8(1, protocol).port(2, tuple.from).port(3, tuple.to))
    )
  }
  const [message] = readMessages(writer.bytes(3, big(status)).bytes(12, big(77)).done())
  return message ?? assert.fail()
}

const way: Tuple = { source: '192.0.2.9', destination: '192.0.2.1', from: 4000, to: 53 }
const translated = flow(way, { source: '10.244.1.2', destination: '192.0.2.9', from: 5353, to: 4000 }, 0x2a)
const unanswered = flow(way, { source: '192.0.2.1', destination: '192.0.2.9', from: 53, to: 4000 }, 8)
const answered = flow(way, { source: '192.0.2.1', destination: '192.0.2.9', from: 53, to: 4000 }, 10)
const place = { family: 4, port: 53 } as const
const pod = { ip: ip('10.244.1.2'), port: 5353 }

for (const [what, message, stale, expected] of [
  ['translated to the pod', translated, { ...place, translatedTo: pod }, true],
  ['translated to another port of it', translated, { ...place, translatedTo: { ...pod, port: 5354 } }, false],
  ['translated to another pod', translated, { ...place, translatedTo: { ...pod, ip: ip('10.244.1.3') } }, false],
  ['to another port of this host', translated, { ...place, port: 54, translatedTo: pod }, false],
  ['to this address', translated, { ...place, at: ip('192.0.2.1'), translatedTo: pod }, true],
  ['to another address', translated, { ...place, at: ip('192.0.2.2'), translatedTo: pod }, false],
  ['that was translated, when only unanswered ones are meant', translated, place, false],
  ['that nobody answered', unanswered, place, true],
  ['that a program of the host answered', answered, place, false],
  ['of TCP', flow(way, { ...way }, 8, 6), place, false]
] as const) {
  test(`a flow ${what} is ${expected ? '' : 'not '}deleted`, () => assert.equal(isStale(message, stale), expected))
}

test('a flow of IPv6 is recognised in the same way', () => {
  const six = flow(
    { source: 'fd00::9', destination: 'fd00::1', from: 4000, to: 53 },
    { source: 'fd00:10::2', destination: 'fd00::9', from: 5353, to: 4000 },
    0x2a
  )
  const to = { ip: ip('fd00:10::2'), port: 5353 }
  assert.equal(isStale(six, { family: 6, port: 53, translatedTo: to }), true)
  assert.equal(isStale(six, { ...place, translatedTo: pod }), false)
})

test('a deletion names the entry by tuple and id; a listing names family, protocol and port', () => {
  const [deletion] = readMessages(deleteFlow(translated))
  assert.equal(deletion?.type, 0x102)
  for (const part of ['c0000209', 'c0000201', '0000004d'])
    assert.ok(deletion?.body.toString('hex').includes(part), part)
  const [listing] = readMessages(listFlows({ family: 6, port: 53 }))
  assert.equal(listing?.type, 0x101)
  assert.equal(listing?.body.readUInt8(0), 10)
  assert.ok(listing?.body.toString('hex').includes('0035'))
})
