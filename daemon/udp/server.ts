// The proxy as a process: its unix socket, one at a time, and what it takes over from one that runs.
import { chmodSync, rmSync } from 'node:fs'
import { type Socket as Connection, createServer, type Server } from 'node:net'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { flock } from '../os/flock.ts'
import { connectTo } from './connection.ts'
import { lineReader } from './lines.ts'
import { answerText, type Hello, helloText, PROTOCOL, parseRequest, statusText } from './protocol.ts'
import { Service } from './service.ts'

/** Milliseconds that another proxy has to end. */
const LEAVE = 10_000

export type ServerOptions = {
  readonly path: string
  readonly version: string
  /** Ask a proxy that runs for what it has, and end it. */
  readonly replace: boolean
  readonly log: Log
}

/** Runs until the signal, or until weftd ends it. Errors: UDP_PROXY_RUNNING; those of listen(2). */
export async function runProxy({ path, version, replace, log }: ServerOptions, signal: AbortSignal): Promise<void> {
  const connections = new Set<Connection>()
  const all = (text: string) => {
    for (const connection of connections) connection.write(text)
  }
  const before = replace ? await takeOver(path) : undefined
  using _lock = await lockOf(path, replace)
  using service = new Service(log, (status) => all(statusText(status)))
  if (before?.socket !== undefined) service.apply({ socket: before.socket, put: before.peers })
  const { promise: ended, resolve: end } = Promise.withResolvers<void>()
  signal.addEventListener('abort', () => end(), { once: true })
  rmSync(path, { force: true })
  const server = createServer((connection) => {
    connections.add(connection)
    connection.on('close', () => connections.delete(connection))
    converse(connection, service, { version, log, end })
  })
  await listening(server, path)
  log.info({ path, version, pid: process.pid }, 'weftd udp-proxy starts')
  await ended
  service[Symbol.dispose]()
  rmSync(path, { force: true })
  for (const connection of connections) connection.destroySoon()
  server.close()
  log.info({}, 'stopped')
}

type Conversation = { readonly version: string; readonly log: Log; readonly end: () => void }

/** Whatever the other side sends, this process goes on. */
function converse(connection: Connection, service: Service, { version, log, end }: Conversation): void {
  const { socket, peers, status } = service
  connection.setEncoding('utf8')
  connection.on('error', () => undefined)
  connection.write(helloText({ protocol: PROTOCOL, version, pid: process.pid, socket, peers, ...status }))
  const heard = lineReader((line) => {
    try {
      const request = parseRequest(line)
      connection.write(answerText(service.apply(request)))
      if (request.end) end()
    } catch (error) {
      log.warn({ reason: reasonOf(error) }, 'a request is not understood')
      connection.write(answerText({ error: reasonOf(error) }))
    }
  })
  connection.on('data', (text) => {
    try {
      heard(String(text))
    } catch (error) {
      log.warn({ reason: reasonOf(error) }, 'a connection is closed')
      connection.destroy()
    }
  })
}

async function listening(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  // The directory is root's already; this is for one that is not.
  const umask = process.umask(0o177)
  server.listen(path, () => {
    chmodSync(path, 0o600)
    resolve()
  })
  process.umask(umask)
  await promise
}

/** What the proxy that runs has, once it has ended; `undefined`: none runs. */
async function takeOver(path: string): Promise<Hello | undefined> {
  const connection = await connectTo(path, {})
  if (connection === undefined) return undefined
  void connection.request({ end: true })
  await connection.closed
  return connection.hello
}

async function lockOf(path: string, replace: boolean): Promise<Disposable> {
  try {
    return await flock(`${path}.lock`, replace ? LEAVE : 0, 0o600)
  } catch (error) {
    if (!(error instanceof WeftError)) throw error
    throw new WeftError(
      'UDP_PROXY_RUNNING',
      `another weftd udp-proxy serves ${path}`,
      'use that one, or start this one with --replace, which takes over from it'
    )
  }
}
