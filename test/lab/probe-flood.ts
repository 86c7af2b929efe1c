// Run in a network namespace of its own with loopback up: sends itself a flood of probes, and prints how many requests
// and answers a raw socket reads of it.
import { setTimeout as sleep } from 'node:timers/promises'
import { RawSocket } from '../../daemon/os/raw-socket.ts'
import { MAGIC, readReceived, writeProbe } from '../../daemon/underlay/probe-packet.ts'

const LOOPBACK = { 4: Uint8Array.of(127, 0, 0, 1), 6: Uint8Array.from({ length: 16 }, (_, at) => (at === 15 ? 1 : 0)) }
const mac = () => new Uint8Array(8)

for (const family of [4, 6] as const) {
  const source = LOOPBACK[family]
  const count = { answer: 0, heard: 0 }
  const received = (packet: Uint8Array) => {
    const { kind } = readReceived(packet, family, mac) ?? {}
    if (kind !== undefined) count[kind]++
  }
  using socket = new RawSocket({ family, source, magic: MAGIC, received })
  const probe = { family, sent: 1, slot: 0, lane: 0, sender: { high: 1, low: 2 }, heardAgo: [] }
  const message = new Uint8Array(128)
  const length = writeProbe(
    message,
    { ...probe, isTrouble: false, isPlain: false, isPlainRefused: false, mtu: 1450 },
    mac
  )
  const send = async (times: number) => {
    // Answers are read between these, as by a daemon that is not busy.
    for (let left = times; left > 0; left--) {
      socket.send(source, message.subarray(0, length))
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
