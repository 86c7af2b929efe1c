// TUN devices (Documentation/networking/tuntap.rst): making one that outlives its process, and exchanging packets with
// the kernel through one, larger than the device's MTU where the kernel leaves cutting and checksums to us.
import { constants, openSync } from 'node:fs'
import { addressOf, errno } from './foreign-function.ts'
import { CallFailed, checked, close, errnoNumber, prototypes, unlessBusy } from './libc.ts'

const CLONE_DEVICE = '/dev/net/tun'
/** <linux/if_tun.h>; the same on x86-64 and arm64. */
const TUNSETIFF = 0x400454ca
const TUNSETPERSIST = 0x400454cb
const TUNSETOFFLOAD = 0x400454d0
const TUNGETIFF = 0x800454d2
const TUNSETVNETHDRSZ = 0x400454d8
const IFF_TUN = 0x0001
const IFF_PERSIST = 0x0800
const IFF_NO_PI = 0x1000
const IFF_VNET_HDR = 0x4000
/** Unfinished checksums, large TCP packets of IPv4, and those with congestion marks. */
const TUN_F = 0x01 | 0x02 | 0x08
/** Octets of struct virtio_net_hdr before each packet. */
const VIRTIO_HEADER = 10
/** Octets that one read may bring. */
export const LARGEST_FRAME = VIRTIO_HEADER + 65_535
/** Where the flags are in a struct ifreq. */
const FLAGS_AT = 16

/** Memory that never moves, since structures point into it. */
const lasting = (length: number): Buffer => Buffer.allocUnsafeSlow(length).fill(0)

function opened(name: string, flags: number): number {
  if (name === '' || Buffer.byteLength(name) > 15) throw new CallFailed('ioctl TUNSETIFF', errnoNumber('EINVAL'))
  const fd = openSync(CLONE_DEVICE, constants.O_RDWR | constants.O_NONBLOCK)
  try {
    const ifreq = Buffer.alloc(40)
    ifreq.write(name)
    ifreq.writeUInt16LE(flags, FLAGS_AT)
    checked('ioctl TUNSETIFF', prototypes.ioctlInterface(fd, TUNSETIFF, ifreq))
    return fd
  } catch (error) {
    close(fd)
    throw error
  }
}

/**
 * Makes a TUN device that stays when no process has it open. Errors: those of open(2); CallFailed, with EBUSY when a
 * process has the device of this name open, EINVAL when it is no TUN device.
 */
export function makeTunDevice(name: string): void {
  const fd = opened(name, IFF_TUN | IFF_NO_PI)
  try {
    checked('ioctl TUNSETPERSIST', prototypes.ioctlValue(fd, TUNSETPERSIST, 1))
  } finally {
    close(fd)
  }
}

/** The other end of a TUN device: what the host sends into it is read here. */
export class TunQueue implements Disposable {
  readonly fd: number
  /** Whether the kernel hands over large packets and unfinished checksums. */
  readonly isOffloaded: boolean
  readonly #parts: Buffer
  readonly #lengths: Uint32Array
  readonly #addresses: BigUint64Array
  readonly #head: Uint8Array
  readonly #pieces: bigint
  #count = 1

  /**
   * Takes the device, which exists. `head` and what `piece` names in `pieces` are written from; neither may move. Errors:
   * those of open(2); CallFailed, with EBUSY while another process has it, ENODEV when there is none.
   */
  constructor(name: string, { head, pieces, most }: { head: Uint8Array; pieces: Uint8Array; most: number }) {
    this.fd = opened(name, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
    try {
      const ifreq = Buffer.alloc(40)
      checked('ioctl TUNGETIFF', prototypes.ioctlInterface(this.fd, TUNGETIFF, ifreq))
      // Without the device TUNSETIFF has just made another, which goes with the descriptor.
      if ((ifreq.readUInt16LE(FLAGS_AT) & IFF_PERSIST) === 0) throw new CallFailed('open', errnoNumber('ENODEV'))
      const size = Buffer.alloc(40)
      size.writeInt32LE(VIRTIO_HEADER)
      checked('ioctl TUNSETVNETHDRSZ', prototypes.ioctlInterface(this.fd, TUNSETVNETHDRSZ, size))
      this.isOffloaded = prototypes.ioctlValue(this.fd, TUNSETOFFLOAD, TUN_F) === 0
    } catch (error) {
      close(this.fd)
      throw error
    }
    this.#parts = lasting((most + 1) * 16)
    this.#addresses = new BigUint64Array(this.#parts.buffer, this.#parts.byteOffset, (most + 1) * 2)
    this.#lengths = new Uint32Array(this.#parts.buffer, this.#parts.byteOffset, (most + 1) * 4)
    this.#head = head
    this.#addresses[0] = addressOf(head)
    this.#pieces = addressOf(pieces)
  }

  /** Octets of the next frame; `undefined`: there is none. Errors: CallFailed, with EBADFD when the device is gone. */
  read(into: Uint8Array): number | undefined {
    return unlessBusy('read', () => prototypes.read(this.fd, into, into.length))
  }

  piece(at: number, length: number): void {
    this.#addresses[this.#count * 2] = this.#pieces + BigInt(at)
    this.#lengths[this.#count * 4 + 2] = length
    this.#count++
  }

  /** Writes so many octets of the head and the pieces named since; the error, when the kernel does not take them. */
  write(head: number): number {
    if (head > this.#head.length) throw new RangeError(`a head of ${head} octets`)
    this.#lengths[2] = head
    const count = this.#count
    this.#count = 1
    return prototypes.writev(this.fd, this.#parts, count) < 0 ? errno() : 0
  }

  [Symbol.dispose](): void {
    close(this.fd)
  }
}
