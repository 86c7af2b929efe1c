// Receives netlink notifications on a raw socket that libuv polls.
//
// Why not the `netlink` package: when the receive buffer overruns, its native part turns ENOBUFS into an exception that
// can't be caught and the process aborts ("terminate called after throwing an instance of 'Napi::Error'", netlink 0.3.0
// on Node 26.10, with and without message peeking; test/lab/kernel.test.ts overruns a socket). It also has no
// SO_RCVBUFFORCE and hides its descriptor. Here a datagram costs 2.3 µs and an overrun is a value.
import {
  CallFailed,
  close,
  forceBuffers,
  joinGroup,
  NETLINK_ROUTE,
  netlinkPort,
  netlinkSocket,
  receiveNow
} from '../../os/libc.ts'
import { whileReadable } from '../../os/readable.ts'
import { KernelError } from './error.ts'
import { type Message, readMessages } from './message.ts'
import { GROUPS } from './uapi.ts'

/** About 30,000 notifications of 1 KiB kernel memory each: a first sync of 5,000 nodes without an overrun. */
const RECEIVE_BYTES = 32 << 20
/** Larger than any notification; links with many virtual functions come close to 16 KiB. */
const DATAGRAM_BYTES = 64 << 10
/** Datagrams read in one turn of the event loop; poll(2) is level-triggered and calls again for the rest. */
const BATCH = 64

export type Notifications = {
  readonly message: (message: Message) => void
  /** Notifications were lost or can't be read: only a new dump shows the state. */
  readonly lost: (why: string) => void
}

export type NotificationOptions = {
  readonly receiveBytes?: number | undefined
  /**
   * The netlink family and its multicast groups; by default links, addresses, routes and neighbours (FDB among them).
   */
  readonly protocol?: number
  readonly groups?: readonly number[]
  /** `message` keeps nothing of a message's memory, which the next datagram then overwrites. */
  readonly keepsNothing?: boolean
}

/** Joins multicast groups in the network namespace of the calling thread; listens until disposed. */
export class NotificationSocket implements Disposable {
  readonly port: number
  readonly #fd: number
  readonly #to: Notifications
  readonly #poll: Disposable
  readonly #keepsNothing: boolean
  readonly #buffer = Buffer.allocUnsafeSlow(DATAGRAM_BYTES)
  #closed = false

  /** Errors: CallFailed; KernelError without CAP_NET_ADMIN. */
  constructor(to: Notifications, options: NotificationOptions = {}) {
    const { receiveBytes = RECEIVE_BYTES, protocol = NETLINK_ROUTE, groups = Object.values(GROUPS) } = options
    this.#to = to
    this.#keepsNothing = options.keepsNothing ?? false
    this.#fd = netlinkSocket(protocol)
    this.port = netlinkPort(this.#fd) ?? 0
    try {
      forceBuffers(this.#fd, { receive: receiveBytes })
      for (const group of groups) joinGroup(this.#fd, group)
      this.#poll = whileReadable(this.#fd, () => this.#read())
    } catch (error) {
      close(this.#fd)
      if (!(error instanceof CallFailed) || error.errnoName !== 'EPERM') throw error
      // The first call that fails without CAP_NET_ADMIN.
      const { errno } = error
      throw new KernelError({ operation: 'open', object: 'a socket for notifications', errno }, { cause: error })
    }
  }

  /** Reads all that has arrived by now, without waiting for the event loop. */
  readNow(): void {
    this.#read(Number.POSITIVE_INFINITY)
  }

  #read(most = BATCH): void {
    for (let count = 0; count < most && !this.#closed; count++) {
      try {
        const length = receiveNow(this.#fd, this.#buffer)
        if (length === undefined) return
        const datagram = this.#buffer.subarray(0, length)
        for (const message of readMessages(this.#keepsNothing ? datagram : Buffer.from(datagram)))
          this.#to.message(message)
      } catch (error) {
        const overrun = error instanceof CallFailed && error.errnoName === 'ENOBUFS'
        this.#to.lost(overrun ? 'more notifications arrived than the socket could hold' : String(error))
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    this.#poll[Symbol.dispose]()
    close(this.#fd)
  }
}
