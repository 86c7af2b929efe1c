// A netlink socket for requests: many messages in one send, acknowledgements matched by sequence number, dumps repeated
// until they are consistent.
//
// Why not the `netlink` package: it drops the kernel's sentence (extended acknowledgement), ignores DUMP_INTR,
// acknowledges message by message, its send waits for the rtnl lock on the event loop, and a receive overrun ends the
// process (see notification-socket.ts). Measured (Node 26, kernel 6.18, medians): send(2) of one small request 9 µs on
// the main thread, 85 µs through the thread pool, and more than that on a busy machine. So short requests are sent on
// the event loop (lane.ts says when not); large batches, dumps and deletions go to the pool.

import { SerialQueue } from '../../base/serial-queue.ts'
import * as libc from '../../os/libc.ts'
import { KernelError } from './error.ts'
import { Lane } from './lane.ts'
import {
  type Acknowledgement,
  MalformedMessage,
  type Message,
  NLM_F,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  readAcknowledgement,
  readMessages
} from './message.ts'

const NETLINK_CAP_ACK = 10
const NETLINK_EXT_ACK = 11
const NETLINK_GET_STRICT_CHK = 12

/** Messages in one send: the answers to all of them, about 1 KiB of kernel memory each, must fit the receive buffer. */
const CHUNK = 500
const BUFFER_BYTES = 4 << 20
/** A pod's links, addresses and routes: about ten messages, 2 ms in the kernel. */
const SHORT_BYTES = 2 << 10
/** The kernel sends no dump datagram larger than 32 KiB. */
const DATAGRAM_BYTES = 64 << 10
const DUMP_ATTEMPTS = 50

/**
 * Scratch memory for synchronous receives; what is kept is copied. Dumps, which wait in between, have a buffer of their
 * own.
 */
const scratch = Buffer.allocUnsafeSlow(DATAGRAM_BYTES)

/** The outcome of a message: `undefined` on success. */
export type Failure = Acknowledgement | undefined

export class RequestSocket implements Disposable {
  readonly fd: number
  /** The port id in notifications of this socket's changes. */
  readonly port: number
  readonly #lane: SerialQueue
  /** Orders request-answer exchanges on this socket; the lane orders single system calls. */
  readonly #exchanges = new SerialQueue()
  #dumpBuffer: Buffer | undefined
  #sequence = 1
  #closed = false

  /**
   * Opens in the network namespace of the calling thread. `lane` is shared by the sockets whose calls wait for each
   * other; `protocol` is a netlink family. Errors: CallFailed.
   */
  constructor(lane: SerialQueue, protocol = libc.NETLINK_ROUTE) {
    this.fd = libc.netlinkSocket(protocol)
    this.#lane = lane
    this.port = libc.netlinkPort(this.fd) ?? 0
    for (const option of [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK])
      libc.setNetlinkOption(this.fd, option)
    libc.setReceiveTimeout(this.fd, 30)
    try {
      libc.forceBuffers(this.fd, { send: BUFFER_BYTES, receive: BUFFER_BYTES })
    } catch (error) {
      libc.close(this.fd)
      throw error
    }
  }

  /** The index of a device in this socket's namespace. */
  indexOf(device: string): number | undefined {
    return this.#closed ? undefined : libc.deviceIndex(this.fd, device)
  }

  /** Whether a device in this socket's namespace has IFF_RUNNING. */
  runs(device: string): boolean {
    return !this.#closed && libc.deviceRuns(this.fd, device)
  }

  /** The name of a device in this socket's namespace; `undefined` as soon as it has left the kernel's lists. */
  nameOf(index: number): string | undefined {
    return this.#closed ? undefined : libc.deviceName(this.fd, index)
  }

  /**
   * Sends requests that change something, in order. A failed one does not stop the others. Never throws for the
   * kernel's answers.
   */
  send(messages: readonly Buffer[]): Promise<readonly Failure[]> {
    return this.#exchanges.take(async () => {
      const failures: Failure[] = []
      for (let at = 0; at < messages.length; at += CHUNK)
        failures.push(...(await this.#sendChunk(messages.slice(at, at + CHUNK))))
      return failures
    })
  }

  /**
   * Sends a transaction made by batch() of nfnetlink.ts: all of it is applied when nothing failed, otherwise nothing.
   * Never throws for the kernel's answers. `echoed` gets the objects that requests with NLM_F_ECHO made; their memory
   * is overwritten afterwards.
   */
  transact(batch: readonly Buffer[], echoed?: (message: Message) => void): Promise<readonly Failure[]> {
    // Kernels before 6.10 do not acknowledge the mark at its end.
    return this.#exchanges.take(() => this.#sendChunk(batch, batch.length - 2, echoed))
  }

  async #sendChunk(
    messages: readonly Buffer[],
    asked = messages.length - 1,
    echoed?: (message: Message) => void
  ): Promise<readonly Failure[]> {
    const first = this.#number(messages)
    const last = messages[asked]
    // The kernel always reports failures; the acknowledgement of the last message says that it has read that far.
    last?.writeUInt16LE(last.readUInt16LE(6) | NLM_F.ack, 6)
    try {
      const bytes = Buffer.concat(messages)
      await this.#put(bytes, bytes.length <= SHORT_BYTES)
    } catch (error) {
      if (!(error instanceof libc.CallFailed)) throw error
      return messages.map(() => ({ errno: error.errno, sentence: 'the request could not be sent' }))
    }
    // The kernel processes requests inside send(2), so all answers have arrived.
    const answers = this.#answers(echoed)
    const complete = answers.has(first + asked)
    return messages.map((_, at) => {
      const answer = answers.get(first + at)
      if (answer !== undefined) return answer.errno === 0 ? undefined : answer
      return complete ? undefined : { errno: libc.errnoNumber('ENOBUFS'), sentence: 'the answer was lost' }
    })
  }

  #number(messages: readonly Buffer[]): number {
    if (this.#sequence > 0x7fff_0000) this.#sequence = 1
    const first = this.#sequence
    for (const message of messages) message.writeUInt32LE(this.#sequence++, 8)
    return first
  }

  #put(bytes: Buffer, isShort: boolean): Promise<number> {
    if (this.#closed) throw new libc.CallFailed('send', libc.errnoNumber('EBADF'))
    const inPool = () => libc.send(this.fd, bytes)
    return isShort && this.#lane instanceof Lane
      ? this.#lane.takeShort(() => libc.sendNow(this.fd, bytes), inPool)
      : this.#lane.take(inPool)
  }

  #answers(echoed?: (message: Message) => void): ReadonlyMap<number, Acknowledgement> {
    const answers = new Map<number, Acknowledgement>()
    for (;;) {
      const length = this.#receiveNow()
      if (length === undefined) return answers
      for (const message of readMessages(scratch.subarray(0, length))) {
        if (message.type === NLMSG_ERROR) answers.set(message.sequence, readAcknowledgement(message))
        else echoed?.(message)
      }
    }
  }

  /** ENOBUFS says that answers were dropped; the others can still be read. */
  #receiveNow(): number | undefined {
    try {
      return libc.receiveNow(this.fd, scratch)
    } catch (error) {
      if (error instanceof libc.CallFailed && error.errnoName === 'ENOBUFS') return libc.receiveNow(this.fd, scratch)
      throw error
    }
  }

  /** One request with one answer. Errors: KernelError with `what` as its object. */
  ask(request: Buffer, what: string): Promise<Message> {
    return this.#exchanges.take(async () => {
      const sequence = this.#number([request])
      await this.#put(request, true)
      for (let length = this.#receiveNow(); length !== undefined; length = this.#receiveNow()) {
        for (const message of readMessages(Buffer.from(scratch.subarray(0, length)))) {
          if (message.sequence !== sequence) continue
          if (message.type === NLMSG_ERROR) throw readError(what, readAcknowledgement(message))
          return message
        }
      }
      throw new MalformedMessage(`no answer to a request for ${what}`)
    })
  }

  /**
   * Requests with one answer each, in one send; an error stands for the answer of the request that it is about. Errors
   * name `what` as their object.
   */
  askAll(requests: readonly Buffer[], what: string): Promise<readonly (Message | KernelError)[]> {
    return this.#exchanges.take(async () => {
      const first = this.#number(requests)
      const bytes = Buffer.concat(requests)
      await this.#put(bytes, bytes.length <= SHORT_BYTES)
      const answers = new Map<number, Message | KernelError>()
      for (let length = this.#receiveNow(); length !== undefined; length = this.#receiveNow()) {
        for (const message of readMessages(Buffer.from(scratch.subarray(0, length)))) {
          if (message.type !== NLMSG_ERROR) answers.set(message.sequence, message)
          else answers.set(message.sequence, readError(what, readAcknowledgement(message)))
        }
      }
      const lost = { errno: libc.errnoNumber('ENOBUFS'), sentence: 'the answer was lost' }
      return requests.map((_, at) => answers.get(first + at) ?? readError(what, lost))
    })
  }

  /**
   * A complete dump, read datagram by datagram so that a long one does not block the event loop. When the kernel
   * reports that the tables changed meanwhile (NLM_F_DUMP_INTR), it is repeated; `restart` is called before each
   * attempt. Errors: KernelError with `what` as its object.
   */
  async dump(
    request: () => Buffer,
    what: string,
    each: (message: Message) => void,
    restart: () => void
  ): Promise<void> {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      restart()
      if (await this.#exchanges.take(() => this.#dumpOnce(request(), what, each))) return
    }
    throw readError(what, {
      errno: libc.errnoNumber('EINTR'),
      sentence: `the tables changed during each of ${DUMP_ATTEMPTS} attempts`
    })
  }

  /** A complete dump as a list of what `decode` makes of each message, but `undefined`. Errors: as dump(). */
  async collect<T>(
    request: () => Buffer,
    what: string,
    decode: (message: Message) => T | undefined
  ): Promise<readonly T[]> {
    const found: T[] = []
    await this.dump(
      request,
      what,
      (message) => {
        const one = decode(message)
        if (one !== undefined) found.push(one)
      },
      () => found.splice(0)
    )
    return found
  }

  /** Returns whether the dump is consistent. */
  #dumpOnce(request: Buffer, what: string, each: (message: Message) => void): Promise<boolean> {
    return this.#datagramsOf(request, (datagram, sequence, reading) => {
      for (const message of readMessages(Buffer.from(datagram))) {
        if (message.sequence === sequence) readPart(message, what, each, reading)
      }
    })
  }

  /**
   * Requests a dump and reads it to its end; the memory of a datagram is overwritten by the next one. Returns whether
   * the dump is consistent. Errors: what `read` left in `failed`.
   */
  async #datagramsOf(
    request: Buffer,
    read: (datagram: Buffer, sequence: number, reading: Reading) => void | Promise<void>
  ): Promise<boolean> {
    const sequence = this.#number([request])
    request.writeUInt16LE(request.readUInt16LE(6) | NLM_F.dump, 6)
    await this.#put(request, false)
    const reading: Reading = { ended: false, whole: true, failed: undefined }
    this.#dumpBuffer ??= Buffer.allocUnsafeSlow(DATAGRAM_BYTES)
    const buffer = this.#dumpBuffer
    while (!reading.ended) {
      const length = await this.#lane.take(() => libc.receive(this.fd, buffer))
      await read(buffer.subarray(0, length), sequence, reading)
    }
    if (reading.failed !== undefined) throw reading.failed
    return reading.whole
  }

  /**
   * A dump in pieces: `take` gets the messages of one datagram, whose memory the next one overwrites, and may wait in
   * between; once it returns `false`, the rest is received unread. The dump is not repeated when something changes
   * meanwhile: notifications say whether that was what was asked for. Errors: KernelError with `what` as its object;
   * those of `take`.
   */
  pieces(request: Buffer, what: string, take: Take): Promise<void> {
    return this.#exchanges.take(async () => {
      let more = true
      await this.#datagramsOf(request, async (datagram, sequence, reading) => {
        const messages = partsOf(datagram, sequence, what, reading)
        try {
          if (more && reading.failed === undefined) more = await take(messages)
        } catch (error) {
          reading.failed = error instanceof Error ? error : new MalformedMessage(String(error))
        }
      })
    })
  }

  /** Closes at once, or when the exchange in progress has ended. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#exchanges.idle) libc.close(this.fd)
    else void this.#exchanges.take(async () => libc.close(this.fd))
  }
}

const readError = (what: string, answer: Acknowledgement): KernelError =>
  new KernelError({ operation: 'read', object: what, ...answer })

type Take = (messages: readonly Message[]) => Promise<boolean> | boolean

/** State of a dump that is being read. */
type Reading = { ended: boolean; whole: boolean; failed: Error | undefined }

/** The dumped objects of one datagram. */
function partsOf(bytes: Buffer, sequence: number, what: string, reading: Reading): readonly Message[] {
  const messages: Message[] = []
  for (const message of readMessages(bytes)) {
    if (message.sequence === sequence) readPart(message, what, (one) => messages.push(one), reading)
  }
  return messages
}

/** A dump must be read to its end even when a part can't be parsed, or the next one on the socket gets EBUSY. */
function readPart(message: Message, what: string, each: (message: Message) => void, reading: Reading): void {
  if ((message.flags & NLM_F.dumpInterrupted) !== 0) reading.whole = false
  if (message.type === NLMSG_ERROR) {
    reading.ended = true
    reading.failed ??= readError(what, readAcknowledgement(message))
  } else if (message.type === NLMSG_DONE) {
    reading.ended = true
    const errno = message.body.length >= 4 ? -message.body.readInt32LE(0) : 0
    if (errno > 0) reading.failed ??= readError(what, { errno })
  } else if (message.type !== NLMSG_NOOP && reading.failed === undefined) {
    try {
      each(message)
    } catch (error) {
      reading.failed = error instanceof Error ? error : new MalformedMessage(String(error))
    }
  }
}
