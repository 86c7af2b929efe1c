// The data path: what the host sends into the TUN device goes to the node that the address belongs to, and what comes
// from there into the device. On the event loop of a process that does nothing else; nothing is polled while idle.
import { DatagramReceiver, DatagramSender, openDatagramSocket, RECEIVED_ROOM } from '../os/datagrams.ts'
import { close, errnoNumber } from '../os/libc.ts'
import { whileReadable } from '../os/readable.ts'
import { LARGEST_FRAME, TunQueue } from '../os/tun.ts'
import { Coalescer, HEAD } from './coalesce.ts'
import type { Counters } from './counters.ts'
import { memoryOf } from './memory.ts'
import { type Datagrams, sendFrame } from './segment.ts'
import type { PeerTable } from './table.ts'

/** Frames that are read from the device before the socket has its turn. */
const FRAMES = 32
/** Turns before the event loop has its own. */
const TURNS = 64
/** Pieces of one frame that is written (UIO_MAXIOV is 1,024). */
const MOST_PIECES = 512

export type ForwarderOptions = {
  readonly device: string
  readonly local: Uint8Array
  readonly port: number
  readonly table: PeerTable
  readonly counters: Counters
  /** An offload that this kernel does not have. */
  readonly lacks: (what: string) => void
  /** The device or the socket is gone; called once. */
  readonly ended: (error: unknown) => void
}

const lasting = (length: number): Uint8Array => Buffer.allocUnsafeSlow(length).fill(0)

export class Forwarder implements Disposable {
  readonly #frame = memoryOf(lasting(LARGEST_FRAME + 1))
  readonly #table: PeerTable
  readonly #counters: Counters
  readonly #ended: (error: unknown) => void
  readonly #tun: TunQueue
  readonly #sender: DatagramSender
  readonly #receiver: DatagramReceiver
  readonly #datagrams: Datagrams
  readonly #coalescer: Coalescer
  readonly #open: DisposableStack

  /**
   * Errors: those of open(2); CallFailed, with EADDRINUSE when another program has the port, EBUSY when one has the
   * device, ENODEV when there is no such device.
   */
  constructor({ device, local, port, table, counters, lacks, ended }: ForwarderOptions) {
    this.#table = table
    this.#counters = counters
    this.#ended = ended
    using opened = new DisposableStack()
    const socket = openDatagramSocket(local, port)
    opened.defer(() => close(socket))
    this.#receiver = new DatagramReceiver(socket)
    const head = memoryOf(lasting(HEAD))
    const tun = new TunQueue(device, { head: head.bytes, pieces: this.#receiver.memory, most: MOST_PIECES })
    this.#tun = opened.use(tun)
    if (!tun.isOffloaded) lacks('offloads of TUN devices (TUNSETOFFLOAD)')
    this.#sender = new DatagramSender(socket, {
      port,
      refused: (errno) => this.#refused(errno),
      withoutSegments: (why) => lacks(`segmentation of datagrams (${why})`)
    })
    const sender = this.#sender
    this.#datagrams = { memory: memoryOf(sender.memory), room: (length, to) => sender.room(length, to) }
    const write = (length: number): void => {
      if (tun.write(length) !== 0) counters.notDelivered++
    }
    const frames = { head, most: MOST_PIECES, piece: (at: number, length: number) => tun.piece(at, length), write }
    this.#coalescer = new Coalescer(memoryOf(this.#receiver.memory), table, frames, counters)
    const forward = () => this.#forward()
    opened.use(whileReadable(socket, forward))
    opened.use(whileReadable(tun.fd, forward))
    this.#open = opened.move()
  }

  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]()
  }

  #forward(): void {
    if (this.#open.disposed) return
    try {
      for (let turn = 0; turn < TURNS; turn++) {
        const [sent, received] = [this.#fromDevice(), this.#toDevice()]
        if (!sent && !received) return
      }
    } catch (error) {
      this[Symbol.dispose]()
      this.#ended(error)
    }
  }

  /** Whether there was anything. */
  #fromDevice(): boolean {
    let count = 0
    for (; count < FRAMES; count++) {
      const length = this.#tun.read(this.#frame.bytes)
      if (length === undefined) break
      sendFrame(this.#frame, length, this.#table, this.#datagrams, this.#counters)
    }
    this.#sender.flush()
    return count > 0
  }

  #toDevice(): boolean {
    const count = this.#receiver.receive()
    for (let at = 0; at < count; at++) {
      const [from, end] = [at * RECEIVED_ROOM, at * RECEIVED_ROOM + this.#receiver.lengthOf(at)]
      const [piece, sender] = [this.#receiver.pieceOf(at), this.#receiver.sourceOf(at)]
      for (let start = from; start < end; start += piece)
        this.#coalescer.packet(start, Math.min(piece, end - start), sender)
    }
    this.#coalescer.flush()
    return count > 0
  }

  #refused(errno: number): void {
    if (errno === EMSGSIZE) this.#counters.oversize++
    else this.#counters.sendFailed++
  }
}

const EMSGSIZE = errnoNumber('EMSGSIZE')
