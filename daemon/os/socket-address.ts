// Addresses of sockets as the kernel takes them: struct sockaddr_in of ip(7), struct sockaddr_in6 of ipv6(7).
import { AF_INET } from './libc.ts'

/** Where the address is in such a struct. */
export const ADDRESS_AT = { 4: 4, 6: 8 } as const

/** `address` in octets. Raw sockets have no port. */
export function socketAddress(family: 4 | 6, address: Uint8Array, port = 0): Buffer {
  const bytes = Buffer.alloc(family === 4 ? 16 : 28)
  bytes.writeUInt16LE(AF_INET[family])
  bytes.writeUInt16BE(port, 2)
  bytes.set(address, ADDRESS_AT[family])
  return bytes
}
