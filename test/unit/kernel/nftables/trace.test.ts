// The trace of our echo requests: the rules that mark them, and what the kernel's messages say of each.
import assert from 'node:assert/strict'
import test from 'node:test'
import { answerIn, echoRequest } from '../../../../daemon/kernel/echo.ts'
import { MessageWriter, readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { courseOf, decodeTrace, OurEvents, type TraceEvent } from '../../../../daemon/kernel/nftables/trace.ts'
import { markIn, passedIn, traceTable } from '../../../../daemon/kernel/nftables/trace-rules.ts'
import { parseIp } from '../../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const ACCEPT = 1
const GOTO = -4

const event = (over: Partial<TraceEvent>): TraceEvent => ({
  ...{ id: 1, family: 'inet', table: 'weft-trace', chain: 'prerouting-before', type: 1, verdict: ACCEPT },
  ...over
})
const mark = (to: string, over: Partial<TraceEvent> = {}) => event({ type: 3, verdict: GOTO, to, ...over })
const drop = (over: Partial<TraceEvent> = {}) =>
  event({ family: 'ip', table: 'filter', chain: 'FORWARD', type: 3, verdict: 0, handle: 7n, ...over })
const nameOf = (index: number) => `dev${index}`

test('a packet is marked by its identifier, number and destination, and inside the tunnel by the same', () => {
  const echoes = [{ destination: ip('10.244.2.7'), tunnelPort: 8472 }, { destination: ip('fd00:2::7') }]
  const table = traceTable('inet', echoes, 0x1234, true)
  assert.match(table, /^table inet weft-trace \{\nflags owner\n/)
  for (const rule of [
    'icmp type echo-request icmp id 4660 icmp sequence 1 ip daddr 10.244.2.7 meta nftrace set 1 goto is-out-1;',
    'icmp type echo-reply icmp id 4660 icmp sequence 1 meta nftrace set 1 goto is-back-1;',
    '@th,368,32 0xaf40207 @th,400,8 0x8 @th,432,32 0x12340001 meta nftrace set 1 goto is-outer-1;',
    '@th,336,32 0xaf40207 @th,400,8 0x0 @th,432,32 0x12340001 meta nftrace set 1 goto is-outer-back-1;',
    'icmpv6 type echo-request icmpv6 id 4660 icmpv6 sequence 2 ip6 daddr fd00:2::7 meta nftrace set 1 goto is-out-2;'
  ])
    assert.ok(table.includes(rule), `${rule}\n${table}`)
  assert.doesNotMatch(table, /drop|reject|queue/)
  assert.doesNotMatch(traceTable('bridge', echoes, 1, false), /owner/)
  assert.doesNotMatch(traceTable('inet', echoes.slice(1), 1, true), /udp/)
})

test('names of chains say which packet it is, and where it was seen', () => {
  assert.deepEqual(markIn('is-outer-back-12'), { leg: 'outer-back', number: 12 })
  assert.deepEqual(passedIn('forward-after'), { hook: 'forward', side: 'after' })
  for (const other of ['is-out-', 'is-other-1', 'FORWARD', 'forward-between', undefined]) {
    assert.equal(markIn(other), undefined)
    assert.equal(passedIn(other), undefined)
  }
})

test('of the packet with its mark the chains that it passed and the rule that dropped it, in order, and of no other', () => {
  const events = [
    drop({ id: 9 }),
    mark('is-out-1'),
    event({}),
    event({ chain: 'prerouting-after' }),
    // Behind a bridge the kernel gives it another id.
    mark('is-out-1', { id: 2, chain: 'forward-before', oif: 4 }),
    event({ id: 2, chain: 'forward-before' }),
    event({ id: 2, family: 'bridge', chain: 'forward-after' }),
    event({ id: 2, table: 'filter', chain: 'FORWARD', type: 2, verdict: 0 }),
    drop({ id: 2 }),
    mark('is-back-2', { id: 3 }),
    drop({ id: 3, type: 1, chain: 'INPUT' })
  ]
  const { handle: _, ...step } = {
    leg: 'out',
    family: 'ip',
    table: 'filter',
    chain: 'FORWARD',
    verdict: 'drop',
    handle: 7n
  }
  assert.deepEqual(courseOf(events, 1, nameOf), {
    passed: [
      { leg: 'out', hook: 'prerouting', side: 'before' },
      { leg: 'out', hook: 'prerouting', side: 'after' },
      { leg: 'out', hook: 'forward', side: 'before', device: 'dev4' }
    ],
    dropped: [{ ...step, handle: 7n }]
  })
  assert.deepEqual(courseOf(events, 2, nameOf).dropped, [{ ...step, leg: 'back', chain: 'INPUT' }])
})

test('an id that the kernel uses again is of the new packet', () => {
  const events = [mark('is-out-1'), mark('is-out-2'), drop()]
  assert.deepEqual(courseOf(events, 1, nameOf).dropped, [])
  assert.equal(courseOf(events, 2, nameOf).dropped.length, 1)
})

test("a message of the kernel's trace is decoded, and others are left alone", () => {
  const big = (value: number) =>
    Buffer.from([value >>> 24, value >>> 16, value >>> 8, value].map((octet) => octet & 255))
  const message = (type: number) =>
    readMessages(
      new MessageWriter(type, 0)
        .fixed([1, 2], [1, 0], [2, 0])
        .text(1, 'filter')
        .text(2, 'FORWARD')
        .bytes(3, [0, 0, 0, 0, 0, 0, 0, 7])
        .bytes(4, big(3))
        .nest(5, (verdict) => verdict.bytes(1, big(0)))
        .bytes(6, big(1))
        .bytes(12, big(4))
        .done()
    )[0] ?? assert.fail()
  assert.deepEqual(decodeTrace(message((10 << 8) | 17)), drop({ oif: 4 }))
  assert.equal(decodeTrace(message((10 << 8) | 6)), undefined)
})

test('an echo request has a checksum, and its answer or an error about it is known from those of others', () => {
  const request = echoRequest(4, 0x1234, 3)
  let sum = 0
  for (let at = 0; at < request.length; at++) sum += (request[at] ?? 0) << (at % 2 === 0 ? 8 : 0)
  assert.equal((sum & 0xffff) + (sum >>> 16), 0xffff)
  const header = (protocol: number) =>
    Buffer.from([0x45, ...new Array(8).fill(0), protocol, 0, 0, 192, 0, 2, 9, 10, 0, 0, 1])
  const reply = Buffer.from(request)
  reply[0] = 0
  assert.deepEqual(answerIn(4, Buffer.concat([header(1), reply]), 0x1234, 3), { kind: 'reply' })
  for (const [id, number] of [
    [0x1234, 4],
    [0x1235, 3]
  ] as const)
    assert.equal(answerIn(4, Buffer.concat([header(1), reply]), id, number), undefined)
  const about = (type: number, code: number, inner: Buffer) =>
    answerIn(4, Buffer.concat([header(1), Buffer.from([type, code, 0, 0, 0, 0, 0, 0]), inner]), 0x1234, 3)
  const refusal = (text: string) => ({ kind: 'error', why: { refusal: { from: ip('192.0.2.9'), text } } })
  const ours = Buffer.concat([header(1), request])
  assert.deepEqual(about(3, 1, ours), refusal('host unreachable'))
  assert.deepEqual(about(3, 13, ours), refusal('administratively prohibited'))
  assert.deepEqual(about(3, 77, ours), refusal('unreachable, code 77'))
  assert.deepEqual(about(11, 0, ours), refusal('time to live exceeded: the packet runs in a circle'))
  assert.equal(about(3, 1, Buffer.concat([header(17), request])), undefined)
  for (const short of [0, 3, 20, 24]) assert.equal(answerIn(4, ours.subarray(0, short), 0x1234, 3), undefined)
  const six = echoRequest(6, 0x1234, 3)
  six[0] = 129
  assert.deepEqual(answerIn(6, six, 0x1234, 3), { kind: 'reply' })
})

test('of the packets that an administrator traces no event is kept, however many they are', () => {
  const ours = new OurEvents()
  for (let id = 100; id < 30_100; id++) assert.equal(ours.take(drop({ id })), false)
  assert.equal(ours.take(mark('chain-of-mine', { id: 3, table: 'filter' })), false)
  for (const event of [mark('is-out-1'), drop()]) assert.equal(ours.take(event), true)
  assert.equal(ours.kept.length, 2)
  assert.equal(courseOf(ours.kept, 1, nameOf).dropped.length, 1)
})
