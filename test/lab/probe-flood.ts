// Run in a network namespace of its own with loopback up: sends itself a flood of probes, and prints how many requests
// and answers a raw socket reads of it; forged answers are part of the flood.
import { setTimeout as sleep } from 'node:timers/promises'
import { RawSocket } from '../../daemon/os/raw-socket.ts'
import { AT_TOKEN, MAGIC, readReceived, writeProbe } from '../../daemon/underlay/probe-packet.ts'

const LOOPBACK = { 4: Uint8Array.of(127, 0, 0, 1), 6: Uint8Array.from({ length: 16 }, (_, at) => (at === 15 ? 1 : 0)) }
const mac = () => new Uint8Array(8)

for (const family of [4, 6] as const) {
  const source = LOOPBACK[family]
  const count = { answer: 0, heard: 0 }
  const received = (packet: Uint8Array) => {
    const { kind } = readReceived(packet, family, mac) ?? {}
    if (kind !== undefined) count[kind]++
  }
  const token = Uint8Array.of(9, 8, 7, 6)
  using socket = new RawSocket({ family, source, magic: MAGIC, token: { at: AT_TOKEN, octets: token }, received })
  const probe = { family, token, sent: 1, slot: 0, lane: 0, sender: { high: 1, low: 2 }, heardAgo: [] }
  const message = new Uint8Array(128)
  const length = writeProbe(
    message,
    { ...probe, isTrouble: false, isPlain: false, isPlainRefused: false, mtu: 1450 },
    mac
  )
  const forged = message.slice(0, length)
  forged[0] = family === 4 ? 0 : 129
  forged.set([1], 8 + AT_TOKEN)
  const send = async (times: number) => {
    // Answers are read between these, as by a daemon that is not busy.
    for (let left = times; left > 0; left--) {
      socket.send(source, message.subarray(0, length))
      socket.send(source, forged)
      if (left % 50 === 0) await sleep(1)
    }
    await sleep(50)
  }
  await send(3_000)
  const flood = { ...count }
  for (let ticks = 0; ticks < 5; ticks++) {
    socket.drain()
    await sleep(20)
  }
  Object.assign(count, { answer: 0, heard: 0 })
  await send(1)
  process.stdout.write(`${JSON.stringify([flood, count])}\n`)
}
