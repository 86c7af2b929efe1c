// Serves the unix socket: one JSON line in, one JSON line out. Limits what a caller decides: length of a line, time to
// send it, calls at once.
import { once } from 'node:events'
import { lstatSync, readFileSync, unlinkSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname } from 'node:path'
import { makeDirectory } from '../../ipam/files.ts'
import {
  type CniRequest,
  type ControlReply,
  type ControlRequest,
  longestLineBytes,
  ProtocolError,
  parseRequest,
  protocolVersion,
  type Reply
} from '../../plugins/protocol.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import { failure, malformed, overloaded, stopping } from '../cni/error-codes.ts'
import { CallFailed, close } from '../os/libc.ts'
import { Connection, type Line } from './connection.ts'
import { Listener, type ListenerEvents } from './listener.ts'

/**
 * Verbs that run at the same time; each needs a few descriptors. Deleting many links takes as long as a few: with 128,
 * a hundred DELs take four fifths of the time with 32.
 */
const MOST_RUNNING = 128
/** Connections that may wait to be accepted: a burst of a few hundred executables must not find the queue full. */
const BACKLOG = 4_096
/** Descriptors reserved for verbs, which need about three each, and for all else that is open. */
const RESERVED_DESCRIPTORS = 512
/** Milliseconds in which a caller must send its line, and then read the answer. */
const LINE_DEADLINE = 30_000
/** Share of a caller's deadline after which the answer is OVERLOADED, which says more than the caller's own timeout. */
const DEADLINE_SHARE = 0.95
/** Milliseconds without a refused connection after which the next one is logged again. */
const CALM = 1_000
/** Milliseconds that callers have to take their answers when weftd stops. */
const LAST_ANSWERS = 2_000
/** Characters of a caller's text that an error repeats. */
const LONGEST_QUOTE = 100
const ONE_RELEASE = 'use executables, weftctl and weftd of one release'
/** The largest delay of setTimeout in milliseconds; larger ones fire at once. */
const LONGEST_TIMER = 2 ** 31 - 1

export type Control = (args: readonly string[]) => Promise<unknown>

export type ServerOptions = {
  readonly path: string
  /** Never rejects. */
  readonly cni: (request: CniRequest) => Promise<Reply>
  /** weftctl's questions by name. A rejection with a WeftError becomes the answer. */
  readonly control: ReadonlyMap<string, Control>
  readonly log: Log
  readonly mostRunning?: number
  /** Open connections; by the limit of descriptors when absent. */
  readonly mostConnections?: number
  readonly longestLineBytes?: number
  /** Milliseconds for a whole line; half a minute when absent. */
  readonly lineDeadline?: number
}

type Waiting = { readonly begin: () => void; readonly stop: () => void }

/** Listens until it is disposed, which waits for running verbs. Errors: DAEMON_RUNNING, SOCKET_UNUSABLE. */
export async function serve(options: ServerOptions): Promise<AsyncDisposable> {
  const calls = new Calls(options)
  makeDirectory(dirname(options.path), 0o700)
  const most = options.mostConnections ?? mostConnections()
  const failed = (error: Error) => options.log.error({ err: error }, 'the socket failed')
  let refusedAt = Number.NEGATIVE_INFINITY
  // Closed unanswered: the executable prints code 11 (STATUS: 50), "weftd closed the connection", and the runtime tries
  // again.
  const refuse = (fd: number) => {
    close(fd)
    const now = performance.now()
    if (now - refusedAt >= CALM) failed(new Error(`${most} connections are open already`))
    refusedAt = now
  }
  const listener = await listen(options.path, {
    connection: (fd) => (calls.connections < most ? calls.accept(fd) : refuse(fd)),
    failed
  })
  return {
    async [Symbol.asyncDispose]() {
      listener[Symbol.dispose]()
      await calls.finish()
    }
  }
}

/** Replaces the socket file of a daemon that no longer runs; that of a running one is an error. */
async function listen(path: string, events: ListenerEvents): Promise<Listener> {
  try {
    return bind(path, events)
  } catch (error) {
    if (!(error instanceof CallFailed) || error.errnoName !== 'EADDRINUSE') throw unusable(path, error)
    if (await answers(path))
      throw new WeftError(
        'DAEMON_RUNNING',
        `another weftd listens on ${path}`,
        'stop it first, or give this one a directory of its own (--state-dir)'
      )
    try {
      if (!lstatSync(path).isSocket()) throw new Error('the file is no socket')
      unlinkSync(path)
      return bind(path, events)
    } catch (second) {
      throw unusable(path, second)
    }
  }
}

const unusable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'SOCKET_UNUSABLE',
    `can't listen on ${path}: ${reasonOf(cause)}`,
    'make the directory writable for root, and remove any other file of this name',
    { cause }
  )

function bind(path: string, events: ListenerEvents): Listener {
  // Others can never open the socket: bind(2) is called in between.
  const umask = process.umask(0o177)
  try {
    return new Listener(path, BACKLOG, events)
  } finally {
    process.umask(umask)
  }
}

/** By the limit of descriptors: if all were in use, verbs would fail. */
function mostConnections(): number {
  const limit = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
  const most = Number(limit ?? 1024)
  return Math.max(most - RESERVED_DESCRIPTORS, Math.floor(most / 4))
}

async function answers(path: string): Promise<boolean> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    // Its queue is full: it is busy, but runs.
    return (error as NodeJS.ErrnoException).code === 'EAGAIN'
  } finally {
    socket.destroy()
  }
}

class Calls {
  readonly #options: ServerOptions
  readonly #mostRunning: number
  readonly #longest: number
  readonly #waiting: Waiting[] = []
  readonly #connections = new Set<Connection>()
  #running = 0
  /** Lines that were read and have no answer yet. */
  #unanswered = 0
  /** By each of weftctl's questions: ends it with STOPPING. */
  readonly #asked = new Set<() => void>()
  #stopping = false
  /** A call, an answer or a connection has ended. */
  readonly #ended = new Wakeup()

  constructor(options: ServerOptions) {
    this.#options = options
    this.#mostRunning = options.mostRunning ?? MOST_RUNNING
    this.#longest = options.longestLineBytes ?? longestLineBytes
  }

  get connections(): number {
    return this.#connections.size
  }

  accept(fd: number): void {
    const connection = new Connection(fd, () => {
      this.#connections.delete(connection)
      this.#ended.notify()
    })
    this.#connections.add(connection)
    this.#talk(connection).catch((error) => {
      this.#options.log.error({ err: error }, 'serving a connection failed')
      connection.close()
    })
  }

  /**
   * Waits for running calls; those that have not begun get STOPPING, and all of weftctl's questions: they change nothing,
   * one may take seconds, and others wait behind it.
   */
  async finish(): Promise<void> {
    this.#stopping = true
    for (const { stop } of this.#waiting.splice(0)) stop()
    for (const stop of this.#asked) stop()
    await this.#until(() => this.#running === 0 && this.#unanswered === 0)
    for (const connection of this.#connections) connection.closeSoon(LAST_ANSWERS)
    await this.#until(() => this.#connections.size === 0)
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await this.#ended.next()
  }

  /** The call runs to its end even if the caller disconnects: DEL follows. */
  async #talk(connection: Connection): Promise<void> {
    const deadline = this.#options.lineDeadline ?? LINE_DEADLINE
    const line = await connection.line(this.#longest, deadline)
    if (line.kind === 'none') return connection.close()
    this.#unanswered++
    try {
      connection.end(`${JSON.stringify(await this.#answerTo(line))}\n`, deadline)
    } finally {
      this.#unanswered--
      this.#ended.notify()
    }
  }

  async #answerTo(line: Exclude<Line, { readonly kind: 'none' }>): Promise<Reply | ControlReply> {
    try {
      if (line.kind === 'too long')
        throw new ProtocolError(`the request is not understood: it is longer than ${this.#longest} bytes`)
      return await this.#answer(parseRequest(line.text))
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#options.log.warn({ reason: error.message }, 'a request was not understood')
      // An answer for both kinds of caller, since it is unknown which one this is.
      return {
        ...malformed(error, ONE_RELEASE),
        error: { code: 'PROTOCOL', message: error.message, cure: ONE_RELEASE }
      }
    }
  }

  #answer(request: CniRequest | ControlRequest): Promise<Reply | ControlReply> {
    return 'ctl' in request ? this.#control(request) : this.#cni(request)
  }

  async #control({ ctl, args }: ControlRequest): Promise<ControlReply> {
    try {
      const control = this.#options.control.get(ctl)
      if (control === undefined) {
        throw new WeftError(
          'UNKNOWN_QUESTION',
          `weftd does not know "${ctl.slice(0, LONGEST_QUOTE)}"`,
          `it knows ${[...this.#options.control.keys()].join(', ')}; use weftctl and weftd of one release`
        )
      }
      return { v: protocolVersion, answer: (await this.#unlessStopping(() => control(args))) ?? null }
    } catch (error) {
      if (error instanceof WeftError)
        return { v: protocolVersion, error: { code: error.code, message: reasonOf(error), cure: error.cure } }
      this.#options.log.error({ err: error, ctl }, 'answering weftctl failed')
      return {
        v: protocolVersion,
        error: { code: 'INTERNAL', message: reasonOf(error), cure: 'report this as a bug of weftd, with its log' }
      }
    }
  }

  /** Errors: STOPPING, whatever becomes of the work then, and those of the work. */
  async #unlessStopping<T>(work: () => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const stop = () => reject(new WeftError('STOPPING', 'weftd is stopping', 'ask again once weftd runs'))
    this.#asked.add(stop)
    try {
      if (this.#stopping) stop()
      else work().then(resolve, reject)
      return await promise
    } finally {
      this.#asked.delete(stop)
    }
  }

  /** Runs the call when there are fewer than the limit, and always answers before the caller's deadline. */
  #cni(request: CniRequest): Promise<Reply> {
    const { promise, resolve } = Promise.withResolvers<Reply>()
    let isAnswered = false
    const timer = setTimeout(
      () => {
        isAnswered = true
        resolve(overloaded(request, this.#running, this.#waiting.length))
      },
      Math.min(request.deadlineMs * DEADLINE_SHARE, LONGEST_TIMER)
    )
    const begin = async () => {
      // The caller has got OVERLOADED already and will retry.
      if (isAnswered) return
      resolve(await this.#options.cni(request))
    }
    const run = () => {
      this.#running++
      begin()
        .catch((error) => resolve(failure(request, error)))
        .finally(() => {
          clearTimeout(timer)
          this.#running--
          this.#next()
        })
    }
    const stop = () => {
      clearTimeout(timer)
      resolve(stopping(request))
    }
    if (this.#stopping) stop()
    else {
      this.#waiting.push({ begin: run, stop })
      this.#next()
    }
    return promise
  }

  #next(): void {
    while (this.#running < this.#mostRunning) {
      const next = this.#waiting.shift()
      if (next === undefined) break
      next.begin()
    }
    this.#ended.notify()
  }
}
