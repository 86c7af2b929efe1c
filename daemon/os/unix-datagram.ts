// Sends one datagram to a unix socket (unix(7)), which Node cannot: its sockets are streams. For sd_notify(3). The
// packages for it (unix-dgram, sd-notify) are native add-ons, for three calls that are checked here already.
import { errno } from './foreign-function.ts'
import { CallFailed, close, errnoNumber, prototypes } from './libc.ts'

/** <sys/socket.h>, <asm-generic/socket.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
/** Octets of sun_path. */
const LONGEST_PATH = 108

/** A struct sockaddr_un: a path with its NUL, or, with `@` for the first octet, a name of the abstract namespace. */
export function unixAddress(name: string): Buffer {
  const isAbstract = name.startsWith('@')
  const path = Buffer.from(isAbstract ? `\0${name.slice(1)}` : `${name}\0`)
  if (!/^[@/]./s.test(name) || path.length > LONGEST_PATH || path.subarray(1, -1).includes(0))
    throw new RangeError(`${JSON.stringify(name)} is not the address of a unix socket`)
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, path])
}

/**
 * False when the receiver's queue is full: never waits for it. Errors: RangeError for what is no address; CallFailed,
 * as when nobody receives there.
 */
export function sendDatagram(name: string, text: string): boolean {
  const [address, bytes] = [unixAddress(name), Buffer.from(text)]
  const fd = prototypes.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (fd < 0) throw new CallFailed('socket AF_UNIX', errno())
  try {
    if (prototypes.connect(fd, address, address.length) < 0) throw new CallFailed(`connect ${name}`, errno())
    if (prototypes.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true
    if (errno() === errnoNumber('EAGAIN')) return false
    throw new CallFailed(`send ${name}`, errno())
  } finally {
    close(fd)
  }
}
