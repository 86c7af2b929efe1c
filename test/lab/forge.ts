// Sends a VXLAN frame (VNI 1) that nobody but another node should send: forge.ts NODE PORT MAC FROM TO WORD. Inside is
// a UDP packet with WORD from the address FROM to port 7777 of TO.
import { createSocket } from 'node:dgram'

const [node = '', port = '', mac = '', from = '', to = '', word = ''] = process.argv.slice(2)
const octets = (text: string, separator: string, radix: number) =>
  Buffer.from(text.split(separator).map((each) => Number.parseInt(each, radix)))

const udp = Buffer.alloc(8)
udp.writeUInt16BE(7776, 0)
udp.writeUInt16BE(7777, 2)
udp.writeUInt16BE(8 + word.length, 4)

const header = Buffer.alloc(20)
header.writeUInt8(0x45, 0)
header.writeUInt16BE(28 + word.length, 2)
header.writeUInt8(64, 8)
header.writeUInt8(17, 9)
octets(from, '.', 10).copy(header, 12)
octets(to, '.', 10).copy(header, 16)
let sum = 0
for (let at = 0; at < 20; at += 2) sum += header.readUInt16BE(at)
while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
header.writeUInt16BE(~sum & 0xffff, 10)

const ethernet = Buffer.concat([octets(mac, ':', 16), octets('02:00:00:00:00:99', ':', 16), Buffer.from([8, 0])])
const vxlan = Buffer.from([8, 0, 0, 0, 0, 0, 1, 0])
const socket = createSocket('udp4')
socket.send(Buffer.concat([vxlan, ethernet, header, udp, Buffer.from(word)]), Number(port), node, () => socket.close())
