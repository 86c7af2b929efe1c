// What the stories of the udp backend send by hand: an inner ICMP echo request as the payload of one UDP datagram, and
// TCP between two pods.
import assert from 'node:assert/strict'
import type { Host } from '../../lab/host.ts'
import type { Place } from '../../lab/lab-scene.ts'
import { until } from '../../lab/run.ts'
import type { NodePod } from './two-nodes.ts'

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

const octets = (address: string): readonly number[] => address.split('.').map(Number)

/** An IPv4 packet with an ICMP echo request. */
export function echoRequest(from: string, to: string): Buffer {
  const packet = Buffer.alloc(28)
  packet.writeUInt8(0x45, 0)
  packet.writeUInt16BE(packet.length, 2)
  packet.writeUInt8(64, 8)
  packet.writeUInt8(1, 9)
  packet.set([...octets(from), ...octets(to)], 12)
  packet.writeUInt16BE(checksum(packet.subarray(0, 20)), 10)
  packet.writeUInt8(8, 20)
  packet.writeUInt16BE(checksum(packet.subarray(20)), 22)
  return packet
}

const SEND = `const socket = require('node:dgram').createSocket('udp4')
socket.send(Buffer.from(process.argv[2], 'hex'), 8285, process.argv[1], () => socket.close())`

/** Sends it from a host to a node's port, as one datagram. */
export async function sendDatagram(host: Host, node: string, payload: Buffer): Promise<void> {
  await host.exec(process.execPath, ['-e', SEND, node, payload.toString('hex')])
}

/** How many echo requests a place has received. */
export async function echoRequests(place: Place): Promise<number> {
  const { stdout } = await place.exec('cat', ['/proc/net/snmp'])
  const [names = [], values = []] = stdout
    .split('\n')
    .filter((line) => line.startsWith('Icmp:'))
    .map((line) => line.split(' '))
  const at = names.indexOf('InEchos')
  assert.ok(at > 0)
  return Number(values[at])
}

/** Two megabytes go from one pod to the other. */
export async function carriesTcp(from: NodePod, to: NodePod): Promise<void> {
  const server = to.pod.spawn('iperf3', ['--server', '--one-off'])
  await until(async () => (await to.pod.exec('ss', ['-Hltn', 'sport = 5201'])).stdout !== '', {
    what: 'iperf3 to listen'
  })
  const { stdout } = await from.pod.exec('iperf3', ['--client', to.address, '--bytes', '2M', '--json'])
  const { end } = JSON.parse(stdout) as { readonly end: { readonly sum_received: { readonly bytes: number } } }
  // The client ends when it has sent them all; what is under way by then the server may not count.
  assert.ok(end.sum_received.bytes >= 1 << 20, `${end.sum_received.bytes} bytes`)
  await server.stop()
}
