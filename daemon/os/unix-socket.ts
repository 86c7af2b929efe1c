// Unix sockets (unix(7)) by the C library: a listener and its connections, which node:net serves at more cost, and
// single datagrams, which Node cannot send. The packages for those (unix-dgram, sd-notify) are native add-ons, for
// three calls that are checked here already.
import { errno } from './foreign-function.ts'
import {
  CallFailed,
  checked,
  close,
  errnoNumber,
  MSG_DONTWAIT,
  prototypes,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  unlessBusy
} from './libc.ts'

/** <sys/socket.h>, <asm-generic/socket.h>; the same on x86-64 and arm64. */
const AF_UNIX = 1
const SOCK_STREAM = 1
const MSG_NOSIGNAL = 0x4000
const SHUT_WR = 1
/** Octets of sun_path, the zero behind a path included; <linux/un.h>. */
const LONGEST_PATH = 108

/** A struct sockaddr_un. */
function addressOf(path: Uint8Array): Buffer {
  const family = Buffer.alloc(2)
  family.writeUInt16LE(AF_UNIX)
  return Buffer.concat([family, path])
}

/**
 * A non-blocking unix stream socket that listens at `path`. Errors: CallFailed, with EADDRINUSE for a file that exists.
 */
export function unixListener(path: string, backlog: number): number {
  const name = Buffer.from(`${path}\0`)
  if (name.length > LONGEST_PATH) throw new CallFailed('bind', errnoNumber('ENAMETOOLONG'))
  const fd = checked('socket', prototypes.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0))
  try {
    const address = addressOf(name)
    checked('bind', prototypes.bind(fd, address, address.length))
    checked('listen', prototypes.listen(fd, backlog))
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

/** The next connection, non-blocking; `undefined` when none waits. Errors: CallFailed. */
export const acceptNow = (fd: number): number | undefined =>
  unlessBusy('accept', () => prototypes.accept4(fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK))

/**
 * How many octets the peer's queue took; `undefined` when it is full. Errors: CallFailed, with EPIPE when the peer has
 * disconnected.
 */
export const sendSome = (fd: number, bytes: Uint8Array): number | undefined =>
  unlessBusy('send', () => prototypes.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL))

/** The peer reads an end; what it sends can still be received. */
export const endSending = (fd: number): void => void prototypes.shutdown(fd, SHUT_WR)

/** An address by its text: a path with its NUL, or, with `@` for the first octet, a name of the abstract namespace. */
export function unixAddress(name: string): Buffer {
  const isAbstract = name.startsWith('@')
  const path = Buffer.from(isAbstract ? `\0${name.slice(1)}` : `${name}\0`)
  if (!/^[@/]./s.test(name) || path.length > LONGEST_PATH || path.subarray(1, -1).includes(0))
    throw new RangeError(`${JSON.stringify(name)} is not the address of a unix socket`)
  return addressOf(path)
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
