// C library calls that Node lacks: netlink sockets, network namespaces, interface requests by ioctl(2).
import { ERRNO, errno, Library } from './foreign-function.ts'

/** <linux/netlink.h>, <linux/sched.h>, <linux/sockios.h>, <asm-generic/socket.h>; the same on x86-64 and arm64. */
const AF_NETLINK = 16
export const NETLINK_ROUTE = 0
const CLONE_NEWNET = 0x40000000
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_CLOEXEC = 0o2000000
export const SOCK_NONBLOCK = 0o4000
export const SOL_SOCKET = 1
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
export const MSG_DONTWAIT = 0x40
const CLOCK_REALTIME = 0

/** struct ifreq, <linux/if.h>: 16 octets of name, then a union; 40 octets in all on 64-bit systems. */
const IFREQ_BYTES = 40

const libc = new Library()
type Socket = (fd: number, bytes: Uint8Array, length: number, flags: number) => number
const BY_LENGTH = { bytes: 'length' } as const
/** A struct mmsghdr has 64 octets on 64-bit systems; what it points to, the callers answer for. */
const MANY = { messages: 'count * 64' } as const

/** Exported for the test that calls each with too short a buffer. */
export const prototypes = {
  socket: libc.declare<(domain: number, type: number, protocol: number) => number>(
    'int socket(int domain, int type, int protocol)'
  ),
  bind: libc.declare<(fd: number, address: Uint8Array, length: number) => number>(
    'int bind(int fd, const void *address, uint32_t length)',
    { address: 'length' }
  ),
  listen: libc.declare<(fd: number, backlog: number) => number>('int listen(int fd, int backlog)'),
  // Both pointers are NULL: nobody asks for the peer's address.
  accept4: libc.declare<(fd: number, address: 0, length: 0, flags: number) => number>(
    'int accept4(int fd, unsigned long address, unsigned long length, int flags)'
  ),
  shutdown: libc.declare<(fd: number, how: number) => number>('int shutdown(int fd, int how)'),
  connect: libc.declare<(fd: number, address: Uint8Array, length: number) => number>(
    'int connect(int fd, const void *address, uint32_t length)',
    { address: 'length' }
  ),
  getsockname: libc.declare<(fd: number, address: Uint8Array, length: Uint8Array) => number>(
    'int getsockname(int fd, void *address, void *length)',
    { address: '*length', length: 4 }
  ),
  setsockopt: libc.declare<(fd: number, level: number, name: number, value: Uint8Array, length: number) => number>(
    'int setsockopt(int fd, int level, int name, const void *value, uint32_t length)',
    { value: 'length' }
  ),
  getsockopt: libc.declare<(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number>(
    'int getsockopt(int fd, int level, int name, void *value, void *length)',
    { value: '*length', length: 4 }
  ),
  send: libc.declare<Socket>('long send(int fd, const void *bytes, size_t length, int flags)', BY_LENGTH),
  recv: libc.declare<Socket>('long recv(int fd, void *bytes, size_t length, int flags)', BY_LENGTH),
  sendmmsg: libc.declare<(fd: number, messages: Uint8Array, count: number, flags: number) => number>(
    'int sendmmsg(int fd, void *messages, unsigned int count, int flags)',
    MANY
  ),
  // The time limit is NULL.
  recvmmsg: libc.declare<(fd: number, messages: Uint8Array, count: number, flags: number, timeout: 0) => number>(
    'int recvmmsg(int fd, void *messages, unsigned int count, int flags, unsigned long timeout)',
    MANY
  ),
  read: libc.declare<(fd: number, bytes: Uint8Array, length: number) => number>(
    'long read(int fd, void *bytes, size_t length)',
    BY_LENGTH
  ),
  // A struct iovec has 16 octets; what it points to, the callers answer for.
  writev: libc.declare<(fd: number, parts: Uint8Array, count: number) => number>(
    'long writev(int fd, const void *parts, int count)',
    { parts: 'count * 16' }
  ),
  clockGetTime: libc.declare<(clock: number, time: Uint8Array) => number>('int clock_gettime(int clock, void *time)', {
    time: 16
  }),
  close: libc.declare<(fd: number) => number>('int close(int fd)'),
  setns: libc.declare<(fd: number, type: number) => number>('int setns(int fd, int type)'),
  unshare: libc.declare<(flags: number) => number>('int unshare(int flags)'),
  // Variadic in C; with at most one argument of a pointer's size the call is the same on x86-64 and arm64.
  ioctl: libc.declare<(fd: number, request: number) => number>('int ioctl(int fd, unsigned long request)'),
  ioctlValue: libc.declare<(fd: number, request: number, value: number) => number>(
    'int ioctl(int fd, unsigned long request, unsigned long value)'
  ),
  ioctlInterface: libc.declare<(fd: number, request: number, ifreq: Uint8Array) => number>(
    'int ioctl(int fd, unsigned long request, void *ifreq)',
    { ifreq: IFREQ_BYTES }
  )
}

const namesOfErrno = new Map(Object.entries(ERRNO).map(([name, number]) => [number, name]))
// Of two names for one number, the one that manual pages name first.
for (const name of ['EAGAIN', 'EOPNOTSUPP', 'EDEADLK']) namesOfErrno.set(ERRNO[name] ?? -1, name)

/** `ENODEV` for 19; numbers without a name come back as `errno 524`. */
export const errnoName = (number: number): string =>
  namesOfErrno.get(number) ?? (number === 524 ? 'ENOTSUPP' : `errno ${number}`)
export const errnoNumber = (name: string): number => ERRNO[name] ?? 0
const EAGAIN = errnoNumber('EAGAIN')

/** A failed call of the C library. Callers turn it into an error that names the operation and the object. */
export class CallFailed extends Error {
  readonly call: string
  readonly errno: number
  readonly errnoName: string

  constructor(call: string, number: number) {
    super(`${call}: ${errnoName(number)}`)
    this.name = 'CallFailed'
    this.call = call
    this.errno = number
    this.errnoName = errnoName(number)
  }
}

/** The result of a call. Errors: CallFailed when it is negative. */
export function checked(call: string, result: number): number {
  if (result < 0) throw new CallFailed(call, errno())
  return result
}

/**
 * A raw netlink socket in the network namespace of the calling thread, close-on-exec, bound to a port id chosen by the
 * kernel.
 */
export function netlinkSocket(protocol: number): number {
  const fd = checked('socket', prototypes.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol))
  try {
    const address = Buffer.alloc(12)
    address.writeUInt16LE(AF_NETLINK, 0)
    checked('bind', prototypes.bind(fd, address, address.length))
    return fd
  } catch (error) {
    prototypes.close(fd)
    throw error
  }
}

/** The port id of a netlink socket; `undefined` for any other descriptor. */
export function netlinkPort(fd: number): number | undefined {
  const address = Buffer.alloc(128)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(address.length)
  if (prototypes.getsockname(fd, address, length) < 0 || address.readUInt16LE(0) !== AF_NETLINK) return undefined
  return address.readUInt32LE(4)
}

export function setOption(fd: number, level: number, name: number, value: Buffer): boolean {
  return prototypes.setsockopt(fd, level, name, value, value.length) === 0
}

/** Errors: CallFailed, with `call`. */
export function option(fd: number, level: number, name: number, value: Buffer, call = 'setsockopt'): void {
  if (!setOption(fd, level, name, value)) throw new CallFailed(call, errno())
}

export const int = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32LE(value)
  return bytes
}

export const AF_INET = { 4: 2, 6: 10 } as const
/** SOL_IP, SOL_IPV6. */
export const SOL = { 4: 0, 6: 41 } as const

/** A UDP socket in the network namespace of the calling thread, for the options of legacy iptables. */
export const datagramSocket = (family: 4 | 6): number =>
  checked('socket', prototypes.socket(AF_INET[family], SOCK_DGRAM | SOCK_CLOEXEC, 0))

/**
 * getsockopt(2) at the level of IP in the thread pool, for options whose value is also a question; what is written
 * begins `into`.
 */
export function ipOption(fd: number, family: 4 | 6, name: number, into: Uint8Array): Promise<number> {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(into.length)
  return threaded('getsockopt', (done) => prototypes.getsockopt.async(fd, SOL[family], name, into, length, done))
}

/** Turns on an option of SOL_NETLINK; `false` when this kernel does not know it. */
export const setNetlinkOption = (fd: number, name: number): boolean => setOption(fd, SOL_NETLINK, name, int(1))

/** Buffers in bytes beyond the sysctl limits; needs CAP_NET_ADMIN in the socket's user namespace. */
export function forceBuffers(fd: number, sizes: { readonly send?: number; readonly receive?: number }): void {
  const { send, receive } = sizes
  if (send !== undefined) option(fd, SOL_SOCKET, SO_SNDBUFFORCE, int(send), 'setsockopt SO_SNDBUFFORCE')
  if (receive !== undefined) option(fd, SOL_SOCKET, SO_RCVBUFFORCE, int(receive), 'setsockopt SO_RCVBUFFORCE')
}

/** Joins a multicast group; only the kernel and processes with CAP_NET_ADMIN can send to it. */
export function joinGroup(fd: number, group: number): void {
  option(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, int(group), 'setsockopt NETLINK_ADD_MEMBERSHIP')
}

/** Limits how long a thread of the pool waits in recv(2). */
export function setReceiveTimeout(fd: number, seconds: number): void {
  const time = Buffer.alloc(16)
  time.writeBigInt64LE(BigInt(seconds), 0)
  setOption(fd, SOL_SOCKET, SO_RCVTIMEO, time)
}

/** Scratch memory of the next call, which writes all of it. */
const timespec = Buffer.alloc(16)

/** Milliseconds since 1970 with their fractions, which Date.now() cuts off; as the kernel's timestamps have them. */
export function wallClock(): number {
  checked('clock_gettime', prototypes.clockGetTime(CLOCK_REALTIME, timespec))
  return timespec.readUIntLE(0, 6) * 1_000 + timespec.readUInt32LE(8) / 1e6
}

type Callback = (error: unknown, result: number) => void

/** Runs a blocking call in the thread pool. The thread's errno is available in the callback only. */
function threaded(call: string, start: (done: Callback) => void): Promise<number> {
  return new Promise((resolve, reject) => {
    start((error, result) => {
      if (error) reject(error)
      else if (result < 0) reject(new CallFailed(call, errno()))
      else resolve(result)
    })
  })
}

/** ioctl(2) with a struct ifreq in the thread pool, for requests that wait for the rtnl lock. */
export const ioctlInterfaceInThread = (fd: number, request: number, ifreqBytes: Uint8Array): Promise<number> =>
  threaded('ioctl', (done) => prototypes.ioctlInterface.async(fd, request, ifreqBytes, done))
/** send(2) in the thread pool; the bytes must not change until it is done. */
export const send = (fd: number, bytes: Uint8Array): Promise<number> =>
  threaded('send', (done) => prototypes.send.async(fd, bytes, bytes.length, 0, done))
/** send(2) on the calling thread. */
export const sendNow = (fd: number, bytes: Uint8Array): number =>
  checked('send', prototypes.send(fd, bytes, bytes.length, 0))
/** recv(2) in the thread pool. */
export const receive = (fd: number, into: Uint8Array): Promise<number> =>
  threaded('recv', (done) => prototypes.recv.async(fd, into, into.length, 0, done))
/** recv(2) with MSG_DONTWAIT on the calling thread; `undefined` when nothing has arrived. */
export const receiveNow = (fd: number, into: Uint8Array): number | undefined =>
  unlessBusy('recv', () => prototypes.recv(fd, into, into.length, MSG_DONTWAIT))

/** The result of a non-blocking call; `undefined` for EAGAIN. */
export function unlessBusy(call: string, run: () => number): number | undefined {
  const result = run()
  if (result >= 0) return result
  if (errno() === EAGAIN) return undefined
  throw new CallFailed(call, errno())
}

export const close = (fd: number): void => void prototypes.close(fd)

/** Moves the calling thread into the network namespace of this descriptor. */
export const setNetworkNamespace = (fd: number): void => void checked('setns', prototypes.setns(fd, CLONE_NEWNET))
/** Moves the calling thread into a new, empty network namespace. */
export const newNetworkNamespace = (): void => void checked('unshare', prototypes.unshare(CLONE_NEWNET))
/** Whether this is a network namespace's descriptor (ioctl_nsfs(2)). */
export const isNetworkNamespace = (fd: number): boolean => prototypes.ioctl(fd, NS_GET_NSTYPE) === CLONE_NEWNET

/** Scratch memory of the calls below, each of which writes all of it. */
const ifreq = Buffer.alloc(IFREQ_BYTES)

/**
 * The index of a device in the socket's namespace, read under RCU: never waits for the rtnl lock. `undefined`: no such
 * device.
 */
export function deviceIndex(fd: number, name: string): number | undefined {
  if (name === '' || Buffer.byteLength(name) > 15) return undefined
  ifreq.fill(0)
  ifreq.write(name)
  return prototypes.ioctlInterface(fd, SIOCGIFINDEX, ifreq) === 0 ? ifreq.readInt32LE(16) : undefined
}

/** Whether the device has IFF_RUNNING, read under RCU; `false` also when there is no such device. */
export function deviceRuns(fd: number, name: string): boolean {
  ifreq.fill(0)
  ifreq.write(name)
  return prototypes.ioctlInterface(fd, SIOCGIFFLAGS, ifreq) === 0 && (ifreq.readUInt16LE(16) & IFF_RUNNING) !== 0
}

/**
 * The name of the device with this index, read under RCU; `undefined` once it has left the kernel's lists. Unlike
 * `deviceIndex` never loads a module.
 */
export function deviceName(fd: number, index: number): string | undefined {
  ifreq.fill(0)
  ifreq.writeInt32LE(index, 16)
  if (prototypes.ioctlInterface(fd, SIOCGIFNAME, ifreq) !== 0) return undefined
  return ifreq.toString('utf8', 0, Math.max(0, ifreq.indexOf(0)))
}
