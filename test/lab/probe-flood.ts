// Run in a network namespace of its own with loopback up: sends itself a flood of probes, and prints how many requests
// and answers a raw socket reads of it.
import assert from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { RawSocket } from '../../daemon/os/raw-socket.ts'
import { AT_MARK, MAGIC, readReceived, writeProbe } from '../../daemon/underlay/probe-packet.ts'
import { ipBytes } from '../../ipam/address.ts'

const LOOPBACK = { 4: Uint8Array.of(127, 0, 0, 1), 6: Uint8Array.from({ length: 16 }, (_, at) => (at === 15 ? 1 : 0)) }
/** 192.0.2.1 and 2001:db8::. */
const UNREACHABLE = { 4: Uint8Array.of(192, 0, 2, 1), 6: Uint8Array.of(32, 1, 13, 184, ...new Uint8Array(12)) }
const mac = () => new Uint8Array(8)

function checksum(icmp: Uint8Array): Uint8Array {
  icmp.fill(0, 2, 4)
  let sum = 0
  for (let at = 0; at < icmp.length; at += 2) sum += (icmp[at] ?? 0) * 256 + (icmp[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return Uint8Array.of((~sum >> 8) & 255, ~sum & 255)
}

for (const family of [4, 6] as const) {
  const source = LOOPBACK[family]
  let latest = 0
  const count = { answer: 0, heard: 0 }
  const received = (packet: Uint8Array, ago: number, octets: number, from?: Uint8Array) => {
    latest = Math.min(latest, ago)
    const found = readReceived(packet, family, mac, octets, from)
    if (found === undefined) return
    if (found.kind === 'heard') assert.deepEqual(found.source && ipBytes(found.source), source)
    count[found.kind]++
  }
  const mark = 0xfeed_beef
  const unsent: number[] = []
  const refused = (tag: number) => void unsent.push(tag)
  using socket = new RawSocket({ family, source, magic: MAGIC, mark: { at: AT_MARK, value: mark }, received, refused })
  const probe = { family, sent: 1, slot: 0, lane: 0, sender: { high: 1, low: 2 }, heardAgo: [] }
  const message = new Uint8Array(128)
  const length = writeProbe(
    message,
    { ...probe, isTrouble: false, isPlain: false, isPlainRefused: false, mtu: 1450, mark },
    mac
  )
  const sendOne = (octets: Uint8Array) => {
    socket.send(source, octets)
    socket.flush()
  }
  const read = () => {
    Object.assign(count, { answer: 0, heard: 0 })
    socket.drain()
    return { ...count }
  }
  // One that the kernel does not send holds up none behind it; more than one call takes are all sent.
  for (let tag = 0; tag < 100; tag++)
    socket.send(tag % 40 === 1 ? UNREACHABLE[family] : source, message.subarray(0, length), tag)
  socket.flush()
  assert.deepEqual([unsent, read()], [[1, 41, 81], { answer: 97, heard: 97 }])
  for (let left = 2_000; left > 0; left--) sendOne(message.subarray(0, length))
  const flood = read()
  // What is left of a flood wakes nobody; the answers have all been read.
  let isWoken = false
  socket.watch(() => {
    isWoken = true
  })
  await sleep(20)
  assert.ok(!isWoken)
  read()
  const woken = new Promise<void>((resolve) => socket.watch(resolve))
  sendOne(message.subarray(0, length))
  await woken
  await sleep(50)
  latest = Number.POSITIVE_INFINITY
  const [asked, forged] = [read(), message.slice(0, length)]
  // However late it is read, it is known when it arrived.
  assert.ok(latest >= 45 && latest < 30_000, `${latest} ms`)
  // Echo replies without the mark, whose checksum (RFC 1071) is right: more than the queue takes while nobody reads.
  forged[0] = family === 4 ? 0 : 129
  forged.fill(0, 8 + AT_MARK, 8 + AT_MARK + 4)
  if (family === 4) forged.set(checksum(forged), 2)
  for (let left = 5_000; left > 0; left--) sendOne(forged)
  sendOne(message.subarray(0, length))
  process.stdout.write(`${JSON.stringify([flood, asked, read()])}\n`)
}
