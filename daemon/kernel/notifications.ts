// Notifications of rtnetlink through the `netlink` package's raw socket, which polls in libuv, reads at most 32 datagrams a turn, and reports ENOBUFS as an event.
// Its parsed layer is not used: it groups messages of dumps, which this socket never makes. It has no SO_RCVBUFFORCE and keeps its descriptor to itself, so the
// descriptor is found by its port id and the option set through libc.
import { readdirSync } from 'node:fs'
import { RawNetlinkSocket } from 'netlink'
import { forceBuffers, NETLINK_ROUTE, netlinkPort } from './libc.ts'
import { type Message, readMessages } from './message.ts'
import { GROUPS } from './uapi.ts'

/** Room for some 30,000 notifications of 1 KiB kernel memory each: a first sync of 5,000 nodes without an overrun. */
const RECEIVE_BYTES = 32 << 20

export type Notifications = {
  readonly message: (message: Message) => void
  /** Notifications were lost or can't be read: only a new dump tells what is true. */
  readonly lost: (why: string) => void
}

/** Joins the groups for links, addresses, routes and neighbours (FDB among them) in the namespace of the calling thread; listens until disposed. */
export class NotificationSocket implements Disposable {
  readonly port: number
  readonly #socket: RawNetlinkSocket

  constructor(to: Notifications, receiveBytes = RECEIVE_BYTES) {
    const socket = new RawNetlinkSocket(NETLINK_ROUTE)
    this.#socket = socket
    this.port = socket.address().port
    socket.on('message', (bytes, from) => {
      // Anybody with the privilege may send to a group; the kernel's own port is 0.
      if (from.port !== 0) return
      try {
        for (const message of readMessages(bytes)) to.message(message)
      } catch (error) {
        to.lost(error instanceof Error ? error.message : String(error))
      }
    })
    socket.on('truncatedMessage', () => to.lost('a notification did not fit the buffer'))
    socket.on('error', (error) =>
      to.lost(error.code === 'ENOBUFS' ? 'more notifications came than the socket could hold' : error.message)
    )
    try {
      const fd = descriptorOf(this.port)
      if (fd !== undefined) forceBuffers(fd, { receive: receiveBytes })
      for (const group of Object.values(GROUPS)) socket.addMembership(group)
    } catch (error) {
      socket.close()
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#socket.close()
  }
}

/** Which of our descriptors is the netlink socket with this port id. */
function descriptorOf(port: number): number | undefined {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .find((fd) => netlinkPort(fd) === port)
}
