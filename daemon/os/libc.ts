// The C library's calls that Node lacks or makes dear, through koffi: sockets, setns, ioctl. The one file where a wrong argument can end the process.
import koffi from 'koffi'

/** <linux/netlink.h>, <linux/sched.h>, <linux/sockios.h>, <asm-generic/socket.h>; the same on x86-64 and arm64. */
const AF_NETLINK = 16
export const NETLINK_ROUTE = 0
const CLONE_NEWNET = 0x40000000
const SOCK_RAW = 3
const SOCK_CLOEXEC = 0o2000000
const SOL_SOCKET = 1
const SO_RCVTIMEO = 20
const SO_SNDBUFFORCE = 32
const SO_RCVBUFFORCE = 33
const SOL_NETLINK = 270
const NETLINK_ADD_MEMBERSHIP = 1
const SIOCGIFNAME = 0x8910
const SIOCGIFFLAGS = 0x8913
const SIOCGIFINDEX = 0x8933
/** <linux/if.h>: operationally up, or not known to be down (RFC 2863). */
const IFF_RUNNING = 0x40
/** <linux/nsfs.h>: _IO(0xb7, 3). */
const NS_GET_NSTYPE = 0xb703
const MSG_DONTWAIT = 0x40

const libc = koffi.load(null)
// `long` for ssize_t and socklen_t by reference as a one-element array: koffi converts neither.
const cSocket = libc.func('int socket(int domain, int type, int protocol)')
const cBind = libc.func('int bind(int fd, const void *address, uint32_t length)')
const cGetsockname = libc.func('int getsockname(int fd, void *address, void *length)')
const cSetsockopt = libc.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t length)')
const cSend = libc.func('long send(int fd, const void *bytes, size_t length, int flags)')
const cRecv = libc.func('long recv(int fd, void *bytes, size_t length, int flags)')
const cClose = libc.func('int close(int fd)')
const cSetns = libc.func('int setns(int fd, int type)')
const cUnshare = libc.func('int unshare(int flags)')
// Variadic in C; with one pointer-sized argument the call is the same on the two architectures we ship.
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)')

const namesOfErrno = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]))
// EWOULDBLOCK and EOPNOTSUPP have second names; say the ones that manual pages use first.
for (const name of ['EAGAIN', 'EOPNOTSUPP', 'EDEADLK']) namesOfErrno.set(koffi.os.errno[name] ?? -1, name)

/** `ENODEV` for 19; numbers without a name come back as `errno 524`. */
export const errnoName = (errno: number): string =>
  namesOfErrno.get(errno) ?? (errno === 524 ? 'ENOTSUPP' : `errno ${errno}`)
export const errnoNumber = (name: string): number => koffi.os.errno[name] ?? 0
const EAGAIN = errnoNumber('EAGAIN')

/** A call of the C library that failed. Callers turn it into an error that names what was attempted on which object. */
export class CallFailed extends Error {
  readonly call: string
  readonly errno: number
  readonly errnoName: string

  constructor(call: string, errno: number) {
    super(`${call}: ${errnoName(errno)}`)
    this.name = 'CallFailed'
    this.call = call
    this.errno = errno
    this.errnoName = errnoName(errno)
  }
}

function checked(call: string, result: number): number {
  if (result < 0) throw new CallFailed(call, koffi.errno())
  return result
}

/** A raw netlink socket in the network namespace of the calling thread, close-on-exec, bound to a port id that the kernel chose. */
export function netlinkSocket(protocol: number): number {
  const fd = checked('socket', cSocket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol))
  try {
    const address = Buffer.alloc(12)
    address.writeUInt16LE(AF_NETLINK, 0)
    checked('bind', cBind(fd, address, address.length))
    return fd
  } catch (error) {
    cClose(fd)
    throw error
  }
}

/** The port id of a netlink socket; `undefined` when `fd` is none. */
export function netlinkPort(fd: number): number | undefined {
  const address = Buffer.alloc(128)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(address.length)
  if (cGetsockname(fd, address, length) < 0 || address.readUInt16LE(0) !== AF_NETLINK) return undefined
  return address.readUInt32LE(4)
}

function setOption(fd: number, level: number, name: number, value: Buffer): boolean {
  return cSetsockopt(fd, level, name, value, value.length) === 0
}

const int = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes
}

/** Turns on one of SOL_NETLINK's switches; `false` when this kernel does not know it. */
export const setNetlinkOption = (fd: number, name: number): boolean => setOption(fd, SOL_NETLINK, name, int(1))

/** Buffers in bytes beyond the sysctl limits; needs CAP_NET_ADMIN in the socket's user namespace. */
export function forceBuffers(fd: number, sizes: { readonly send?: number; readonly receive?: number }): void {
  const { send, receive } = sizes
  if (send !== undefined && !setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, int(send)))
    throw new CallFailed('setsockopt SO_SNDBUFFORCE', koffi.errno())
  if (receive !== undefined && !setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, int(receive))) {
    throw new CallFailed('setsockopt SO_RCVBUFFORCE', koffi.errno())
  }
}

/** Joins a multicast group; only the kernel and processes with CAP_NET_ADMIN can send to one. */
export function joinGroup(fd: number, group: number): void {
  if (!setOption(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, int(group))) {
    throw new CallFailed('setsockopt NETLINK_ADD_MEMBERSHIP', koffi.errno())
  }
}

/** So that a thread of the pool can never wait for ever in recv(2). */
export function setReceiveTimeout(fd: number, seconds: number): void {
  const time = Buffer.alloc(16)
  time.writeBigInt64LE(BigInt(seconds), 0)
  setOption(fd, SOL_SOCKET, SO_RCVTIMEO, time)
}

type Callback = (error: unknown, result: number) => void

/** Runs a blocking call in the thread pool. koffi hands the thread's errno to the callback and only there. */
function threaded(call: string, start: (done: Callback) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    start((error, result) => {
      if (error) reject(error)
      else if (result < 0) reject(new CallFailed(call, koffi.errno()))
      else resolve(result)
    })
  })
}

/** send(2) in the thread pool; the bytes must not change until it is done. */
export const send = (fd: number, bytes: Uint8Array): Promise<number> =>
  threaded('send', (done) => cSend.async(fd, bytes, bytes.length, 0, done))
/** send(2) on the calling thread. */
export const sendNow = (fd: number, bytes: Uint8Array): number => checked('send', cSend(fd, bytes, bytes.length, 0))
/** recv(2) in the thread pool. */
export const receive = (fd: number, into: Uint8Array): Promise<number> =>
  threaded('recv', (done) => cRecv.async(fd, into, into.length, 0, done))
/** recv(2) with MSG_DONTWAIT on the calling thread; `undefined` when nothing is there. */
export const receiveNow = (fd: number, into: Uint8Array): number | undefined =>
  unlessBusy('recv', () => cRecv(fd, into, into.length, MSG_DONTWAIT))

/** What a call answers that does not wait; `undefined` for EAGAIN. */
function unlessBusy(call: string, run: () => number): number | undefined {
  const result = run()
  if (result >= 0) return result
  if (koffi.errno() === EAGAIN) return undefined
  throw new CallFailed(call, koffi.errno())
}

export const close = (fd: number): void => void cClose(fd)

/** Moves the calling thread into the network namespace that `fd` stands for. */
export const setNetworkNamespace = (fd: number): void => void checked('setns', cSetns(fd, CLONE_NEWNET))
/** Moves the calling thread into a new, empty network namespace. */
export const newNetworkNamespace = (): void => void checked('unshare', cUnshare(CLONE_NEWNET))
/** Whether `fd` stands for a network namespace (ioctl_nsfs(2)). */
export const isNetworkNamespace = (fd: number): boolean => cIoctl(fd, NS_GET_NSTYPE, null) === CLONE_NEWNET

/** struct ifreq: 16 octets of name, then a union; 40 octets in all on 64-bit systems. */
const ifreq = Buffer.alloc(40)

/** The index of a device in the socket's namespace, read under RCU: it never waits for the rtnl lock. `undefined`: there is none of that name. */
export function deviceIndex(fd: number, name: string): number | undefined {
  if (name === '' || Buffer.byteLength(name) > 15) return undefined
  ifreq.fill(0)
  ifreq.write(name)
  return cIoctl(fd, SIOCGIFINDEX, ifreq) === 0 ? ifreq.readInt32LE(16) : undefined
}

/** Whether the device has IFF_RUNNING, read under RCU; `false` also when there is none of that name. */
export function deviceRuns(fd: number, name: string): boolean {
  ifreq.fill(0)
  ifreq.write(name)
  return cIoctl(fd, SIOCGIFFLAGS, ifreq) === 0 && (ifreq.readUInt16LE(16) & IFF_RUNNING) !== 0
}

/** The name of the device with this index, read under RCU; `undefined` once the device has left the kernel's lists. Loads no module, unlike `deviceIndex`. */
export function deviceName(fd: number, index: number): string | undefined {
  ifreq.fill(0)
  ifreq.writeInt32LE(index, 16)
  if (cIoctl(fd, SIOCGIFNAME, ifreq) !== 0) return undefined
  return ifreq.toString('utf8', 0, Math.max(0, ifreq.indexOf(0)))
}
