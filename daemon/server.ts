// The unix socket: one JSON line in, a verb, one JSON line out. Bounded in everything a caller decides: length of a line, time to send it, calls at once.
import { once } from 'node:events'
import { unlinkSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { makeDirectory } from '../ipam/files.ts'
import { CniError, cniCode } from '../plugins/cni/error.ts'
import {
  type CniRequest,
  type ControlReply,
  type ControlRequest,
  longestLineBytes,
  ProtocolError,
  parseRequest,
  protocolVersion,
  type Reply
} from '../plugins/protocol.ts'
import { cniError, failed } from './cni-calls.ts'
import { reasonOf, WeftError } from './error.ts'
import type { Log } from './log.ts'

/** Verbs at work at one time; each needs a few descriptors. A deletion of many links takes as long as one of a few: with 128, a hundred DELs take four fifths of the time with 32. */
const MOST_RUNNING = 128
/** Connections that may wait to be accepted: a burst of a few hundred executables must not meet a full queue. */
const BACKLOG = 4_096
/** Milliseconds in which a caller must have sent its line, and then have taken the answer. */
const LINE_DEADLINE = 30_000
/** Share of a caller's patience after which we answer ourselves, with more to say than "no answer". */
const PATIENCE = 0.95
const ONE_RELEASE = 'use executables, weftctl and weftd of one release'
/** What setTimeout can count to, in milliseconds; longer ones end at once. */
const LONGEST_TIMER = 2 ** 31 - 1

export type Control = (args: readonly string[]) => Promise<unknown>

export type ServerOptions = {
  readonly path: string
  /** Never rejects. */
  readonly cni: (request: CniRequest) => Promise<Reply>
  /** weftctl's questions by name. A rejection with a WeftError is the answer. */
  readonly control: ReadonlyMap<string, Control>
  readonly log: Log
  readonly mostRunning?: number
  readonly longestLineBytes?: number
  /** Milliseconds for a whole line; half a minute when absent. */
  readonly lineDeadline?: number
}

type Waiting = { readonly begin: () => void; readonly refuse: (error: WeftError) => void }

/** Listens until it is disposed of, which waits for the verbs at work. Errors: DAEMON_RUNNING, SOCKET_UNUSABLE. */
export async function serve(options: ServerOptions): Promise<AsyncDisposable> {
  const calls = new Calls(options)
  const server = createServer({ allowHalfOpen: true }, (socket) => calls.accept(socket))
  makeDirectory(dirname(options.path), 0o700)
  await listen(server, options.path)
  server.on('error', (error) => options.log.error({ err: error }, 'the socket failed'))
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close')
      // Takes the socket file away too, so that executables say at once that nobody is there.
      server.close()
      await calls.finish()
      await closed
    }
  }
}

/** A socket file that a dead daemon left is replaced; a living one is an error. */
async function listen(server: Server, path: string): Promise<void> {
  try {
    await bind(server, path)
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'EADDRINUSE') throw unusable(path, error)
    if (await answers(path))
      throw new WeftError(
        'DAEMON_RUNNING',
        `another weftd listens on ${path}`,
        'stop it first, or give this one a socket of its own (WEFTD_SOCKET)'
      )
    try {
      unlinkSync(path)
      await bind(server, path)
    } catch (second) {
      throw unusable(path, second)
    }
  }
}

const unusable = (path: string, cause: unknown): WeftError =>
  new WeftError(
    'SOCKET_UNUSABLE',
    `can not listen on ${path}: ${reasonOf(cause)}`,
    'see that the directory exists, is writable for root and holds nothing else of this name',
    { cause }
  )

async function bind(server: Server, path: string): Promise<void> {
  // bind(2) happens inside listen(), so no moment remains in which others could open the socket.
  const umask = process.umask(0o177)
  try {
    server.listen({ path, backlog: BACKLOG })
  } finally {
    process.umask(umask)
  }
  await once(server, 'listening')
}

async function answers(path: string): Promise<boolean> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

class Calls {
  readonly #options: ServerOptions
  readonly #mostRunning: number
  readonly #longest: number
  readonly #waiting: Waiting[] = []
  readonly #sockets = new Set<Socket>()
  #running = 0
  #stopping = false
  readonly #idle: (() => void)[] = []

  constructor(options: ServerOptions) {
    this.#options = options
    this.#mostRunning = options.mostRunning ?? MOST_RUNNING
    this.#longest = options.longestLineBytes ?? longestLineBytes
  }

  accept(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('close', () => this.#sockets.delete(socket))
    // A caller that went away: what it asked for goes on, and DEL follows.
    socket.on('error', () => socket.destroy())
    this.#talk(socket).catch((error) => {
      this.#options.log.error({ err: error }, 'serving a connection failed')
      socket.destroy()
    })
  }

  /** Waits for what is at work; what has not begun is told to come again. */
  async finish(): Promise<void> {
    this.#stopping = true
    for (const { refuse } of this.#waiting.splice(0))
      refuse(
        new WeftError(
          'STOPPING',
          'weftd is stopping',
          'the runtime tries again; if weftd stays away, look at why it was stopped'
        )
      )
    if (this.#running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
    for (const socket of this.#sockets) socket.destroySoon()
  }

  async #talk(socket: Socket): Promise<void> {
    let answer: Reply | ControlReply
    try {
      const line = await this.#line(socket)
      if (line === undefined) return void socket.destroy()
      answer = await this.#answer(parseRequest(line))
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#options.log.warn({ reason: error.message }, 'a request was not understood')
      // Both kinds of caller find what they look for: we can't know which it is.
      answer = {
        ...failed(new CniError(error.message, { code: cniCode.decoding, details: ONE_RELEASE })),
        error: { code: 'PROTOCOL', message: error.message, cure: ONE_RELEASE }
      }
    }
    if (socket.destroyed) return
    socket.end(`${JSON.stringify(answer)}\n`)
    // One that takes nothing of it, or does not hang up, has had its time.
    const late = setTimeout(() => socket.destroy(), this.#options.lineDeadline ?? LINE_DEADLINE)
    socket.once('close', () => clearTimeout(late))
  }

  /** The first line; `undefined` when the caller left or was too slow. */
  #line(socket: Socket): Promise<string | undefined> {
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
    const chunks: Buffer[] = []
    let length = 0
    // From the first moment, not from the last byte: a byte now and then must not keep a descriptor for ever.
    const late = setTimeout(() => resolve(undefined), this.#options.lineDeadline ?? LINE_DEADLINE)
    const settled = promise.finally(() => clearTimeout(late))
    const read = (chunk: Buffer) => {
      const end = chunk.indexOf(10)
      chunks.push(end < 0 ? chunk : chunk.subarray(0, end))
      length += chunk.length
      if (end >= 0) resolve(Buffer.concat(chunks).toString())
      else if (length > this.#longest)
        reject(new ProtocolError(`the request is not understood: it is longer than ${this.#longest} bytes`))
      else return
      socket.off('data', read)
      // What follows the line is nobody's.
      socket.resume()
    }
    socket.on('data', read)
    socket.once('end', () => resolve(undefined))
    socket.once('close', () => resolve(undefined))
    return settled
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
          `weftd does not know "${ctl}"`,
          `it knows ${[...this.#options.control.keys()].join(', ')}; use weftctl and weftd of one release`
        )
      }
      return { v: protocolVersion, answer: (await control(args)) ?? null }
    } catch (error) {
      if (error instanceof WeftError)
        return { v: protocolVersion, error: { code: error.code, message: reasonOf(error), cure: error.cure } }
      this.#options.log.error({ err: error, ctl }, 'answering weftctl failed')
      return {
        v: protocolVersion,
        error: { code: 'INTERNAL', message: reasonOf(error), cure: 'this is a fault of weftd: report it with its log' }
      }
    }
  }

  /** Runs the call when its turn has come, and answers in time whatever happens. */
  #cni(request: CniRequest): Promise<Reply> {
    const { promise, resolve } = Promise.withResolvers<Reply>()
    const refuse = (error: WeftError) => resolve(failed(cniError(error), request))
    let isOver = false
    const timer = setTimeout(
      () => {
        isOver = true
        refuse(overloaded(request, this.#running, this.#waiting.length))
      },
      Math.min(request.deadlineMs * PATIENCE, LONGEST_TIMER)
    )
    const begin = async () => {
      // Its caller has been told to come again: to do it now would be work for nobody.
      if (isOver) return
      resolve(await this.#options.cni(request))
    }
    const run = () => {
      this.#running++
      begin()
        .catch((error) =>
          refuse(
            new WeftError(
              'INTERNAL',
              `weftd failed: ${reasonOf(error)}`,
              'this is a fault of weftd: report it with its log',
              { cause: error }
            )
          )
        )
        .finally(() => {
          clearTimeout(timer)
          this.#running--
          this.#next()
        })
    }
    const refuseNow = (error: WeftError) => {
      clearTimeout(timer)
      refuse(error)
    }
    this.#waiting.push({ begin: run, refuse: refuseNow })
    this.#next()
    return promise
  }

  #next(): void {
    while (this.#running < this.#mostRunning) {
      const next = this.#waiting.shift()
      if (next === undefined) break
      next.begin()
    }
    if (this.#running === 0 && this.#stopping) for (const resolve of this.#idle.splice(0)) resolve()
  }
}

const overloaded = (request: CniRequest, running: number, waiting: number): WeftError =>
  new WeftError(
    'OVERLOADED',
    `weftd could not finish ${request.env.CNI_COMMAND} for container ${request.env.CNI_CONTAINERID} within ${request.deadlineMs} ms: ${running} calls are at work and ${waiting} wait`,
    'the runtime tries again; if it stays so, look at the log of weftd and at what else keeps the kernel busy'
  )
