// What the stories of the udp backend on a TUN device look at: its process, and packets made by hand.
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { connectTo, proxyPath } from '../../daemon/udp/connection.ts'
import type { Counters } from '../../daemon/udp/counters.ts'
import type { Hello } from '../../daemon/udp/protocol.ts'
import type { Resident } from './cluster.ts'
import type { Host } from './host.ts'
import { until } from './run.ts'

export const UDP = { Network: '10.244.0.0/16', Backend: { Type: 'udp' } }

/** What the proxy of a host says of itself; `undefined`: there is none. */
export async function proxyOf(host: Host): Promise<(Hello & { readonly counters: Counters }) | undefined> {
  const connection = await connectTo(host.path(proxyPath('/run/weft')), {})
  if (connection === undefined) return undefined
  const counters = (await connection.request({ counters: true }))?.counters
  connection.close()
  return counters && { ...connection.hello, counters }
}

/** The proxy of a host, once it carries packets; `than`: another process than this one. */
export const carrying = (host: Host, than?: number): Promise<Hello & { readonly counters: Counters }> =>
  until(
    async () => {
      const proxy = await proxyOf(host)
      return proxy?.carries === true && proxy.pid !== than ? proxy : undefined
    },
    { what: `a weftd udp-proxy on ${host.name} that carries packets` }
  )

/** So many bytes over TCP from one pod to another; rejects when they do not arrive. */
export async function transfer(from: Resident, to: Resident, ...more: readonly string[]): Promise<void> {
  const server = to.pod.spawn('iperf3', ['-s', '-1', '--forceflush'])
  await until(() => server.text().includes('listening'), { what: 'iperf3 to listen' })
  await from.pod.exec('iperf3', ['-c', to.address, ...more], { timeoutMs: 60_000 })
}

const octets = (address: string): readonly number[] => address.split('.').map(Number)

/** An IPv4 packet with a UDP datagram to port 7777, in hex; UDP without checksum. */
export function udpPacket(from: string, to: string, word: string): string {
  const length = 28 + word.length
  const header = Buffer.from([
    0x45,
    0,
    length >> 8,
    length & 0xff,
    0,
    1,
    0,
    0,
    64,
    17,
    0,
    0,
    ...octets(from),
    ...octets(to)
  ])
  let sum = 0
  for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  header.writeUInt16BE(~sum & 0xffff, 10)
  const udp = Buffer.alloc(8)
  udp.writeUInt16BE(7_776, 0)
  udp.writeUInt16BE(7_777, 2)
  udp.writeUInt16BE(8 + word.length, 4)
  return Buffer.concat([header, udp, Buffer.from(word)]).toString('hex')
}

/** Sends that packet to a node as another node would. */
export async function sendTo(from: Host, node: Host, packet: string): Promise<void> {
  const script = fileURLToPath(new URL('./send-datagram.ts', import.meta.url))
  const { stdout } = await from.exec(process.execPath, [script, node.address, '8285', packet])
  assert.equal(stdout, 'sent\n')
}
