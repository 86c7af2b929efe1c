// Run in a network namespace of its own with loopback up: asks for ports that are closed, silent and answered by others than
// the kernel, and prints what counted as an answer.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { askPort } from '../../daemon/os/port-question.ts'
import { RawSocket } from '../../daemon/os/raw-socket.ts'

const [ONE, TWO] = [Uint8Array.of(127, 0, 0, 1), Uint8Array.of(127, 0, 0, 2)]
const LOOPBACK6 = Uint8Array.from({ length: 16 }, (_, at) => (at === 15 ? 1 : 0))
const question = { family: 4, source: ONE, to: TWO, port: 9, mark: 0, octets: 18, patience: 500 } as const

/** RFC 1071. */
function withChecksum(bytes: Buffer, at: number): Buffer {
  bytes.writeUInt16BE(0, at)
  let sum = 0
  for (let word = 0; word < bytes.length; word += 2) sum += bytes.readUInt16BE(word)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  bytes.writeUInt16BE(~sum & 0xffff, at)
  return bytes
}

/** An ICMP error (RFC 792: destination unreachable, port) about a packet from ONE at this port to TWO, port 9. */
function unreachable(from: number, payload: Uint8Array): Buffer {
  const ip = Buffer.alloc(20)
  ip.set([0x45, 0, 0, 28 + payload.length, 0, 0, 0, 0, 64, 17])
  ip.set(ONE, 12)
  ip.set(TWO, 16)
  const udp = Buffer.alloc(8)
  for (const [at, value] of [from, 9, 8 + payload.length, 0].entries()) udp.writeUInt16BE(value, 2 * at)
  return withChecksum(Buffer.concat([Buffer.from([3, 3, 0, 0, 0, 0, 0, 0]), withChecksum(ip, 10), udp, payload]), 2)
}

const closed = [
  await askPort(question),
  await askPort({ ...question, family: 6, source: LOOPBACK6, to: LOOPBACK6, mark: 7 })
]
const listener = createSocket('udp4')
listener.bind(9, '127.0.0.2')
await once(listener, 'listening')
const silent = await askPort(question)

using raw = new RawSocket({ family: 4, source: TWO, magic: 'forgerie' })
function send(...messages: readonly Uint8Array[]): void {
  for (const message of messages) raw.send(ONE, message)
  raw.flush()
}
async function answeredBy(answer: (payload: Buffer, port: number) => void): Promise<boolean> {
  const asked = askPort(question)
  const [payload, { port }] = await once(listener, 'message')
  answer(payload, port)
  return asked
}
const data = await answeredBy((_, port) => listener.send('an answer', port, '127.0.0.1'))
const forged = await answeredBy((_, port) =>
  send(...[Buffer.alloc(18), Buffer.alloc(0)].map((payload) => unreachable(port, payload)))
)
// What the kernel of the peer sends.
const quoted = await answeredBy((payload, port) => send(unreachable(port, payload)))
listener.close()
process.stdout.write(JSON.stringify({ closed, silent, data, forged, quoted }))
