// Sends one SCTP packet (RFC 9260) from here: arguments are INIT or INIT-ACK, source port, address, port. By hand,
// since hardly a kernel of today has SCTP sockets, while conntrack knows the protocol.
import koffi from 'koffi'

const AF_INET = 2
const SOCK_RAW = 3
const IPPROTO_SCTP = 132
/** Any but 0; the answer to an INIT bears the tag of it. */
const TAG = 0x5ca1ab1e

const [kind = '', from = '', address = '', port = ''] = process.argv.slice(2)
const chunkType = { INIT: 1, 'INIT-ACK': 2 }[kind]
if (chunkType === undefined) throw new Error(`neither INIT nor INIT-ACK: ${kind}`)

/** CRC-32C, which conntrack checks (RFC 9260, appendix A). */
function checksum(bytes: Buffer): number {
  let crc = 0xffff_ffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1
  }
  return ~crc >>> 0
}

const packet = Buffer.alloc(32)
packet.writeUInt16BE(Number(from), 0)
packet.writeUInt16BE(Number(port), 2)
packet.writeUInt32BE(kind === 'INIT' ? 0 : TAG, 4)
packet.writeUInt8(chunkType, 12)
packet.writeUInt16BE(20, 14)
packet.writeUInt32BE(TAG, 16)
packet.writeUInt32BE(65_536, 20)
packet.writeUInt16BE(1, 24)
packet.writeUInt16BE(1, 26)
packet.writeUInt32BE(1, 28)
packet.writeUInt32LE(checksum(packet), 8)

const to = Buffer.alloc(16)
to.writeUInt16LE(AF_INET, 0)
to.set(address.split('.').map(Number), 4)
const libc = koffi.load(null)
const fd = libc.func('int socket(int domain, int type, int protocol)')(AF_INET, SOCK_RAW, IPPROTO_SCTP) as number
const sendTo = libc.func(
  'long sendto(int fd, const void *bytes, size_t length, int flags, const void *to, uint32_t size)'
)
if (fd < 0 || Number(sendTo(fd, packet, packet.length, 0, to, to.length)) !== packet.length)
  throw new Error(`the packet can not be sent: errno ${koffi.errno()}`)
