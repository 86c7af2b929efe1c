// HTTP endpoints for probes and Prometheus: /healthz (the process is alive), /readyz (503 with the blocking condition
// and its cure) and /metrics.
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { formatIp, type Ip } from '../../ipam/address.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { printable } from '../base/printable.ts'
import { sentence } from './conditions.ts'
import { Connections, type Deadlines } from './connections.ts'
import type { Health } from './health.ts'
import type { Metrics } from './metrics.ts'

// Not an import: as an ES module node:http hands out WebSocket too, and to have it loads undici: 16 MB resident, 7 of
// them private, and 60 ms of the start (Node 26, November 2026).
const { createServer } = process.getBuiltinModule('node:http')

/** Milliseconds for which the text of /metrics stays. */
const SAME_TEXT = 200

type Wanted = {
  readonly health: Pick<Health, 'active' | 'blocking'>
  readonly metrics: Pick<Metrics, 'registry'>
  readonly ip: Ip
  /** 0 lets the kernel choose one (tests). */
  readonly port: number
  /** Ends the server and its connections. */
  readonly signal: AbortSignal
  /** Differ in tests only. */
  readonly deadlines?: Deadlines
}

type Page = {
  readonly status: number
  readonly type: string
  readonly body: string
  /** The connection ends with this answer. */
  readonly isLast?: true
}
const plain = (status: number, body: string): Page => ({ status, type: 'text/plain; charset=utf-8', body })

/**
 * Serves until the signal; resolves with the port once it listens. Errors: HTTP_LISTEN when the address can't be had.
 */
export async function serveHttp(wanted: Wanted): Promise<{ readonly port: number }> {
  const connections = new Connections(wanted.deadlines)
  const texts = new MetricsText(wanted.metrics)
  const server = createServer((request, response) => {
    const { socket } = request
    connections.begin(socket)
    response.once('close', () => connections.end(socket))
    void answer(wanted, texts, request, response)
  })
  server.on('connection', (socket) => connections.accept(socket))
  // Connections has all deadlines, and those of node:http are looked at every half minute only.
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.headersTimeout = 0
  await listen(server, wanted)
  const stop = () => {
    server.close()
    server.closeAllConnections()
  }
  if (wanted.signal.aborted) stop()
  else wanted.signal.addEventListener('abort', stop, { once: true })
  return { port: (server.address() as AddressInfo).port }
}

function listen(server: Server, { ip, port }: Wanted): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', (cause: NodeJS.ErrnoException) => {
    const cures: Record<string, string> = {
      EADDRINUSE: 'choose another --healthz-port, or stop the program that has this port (`ss -ltnp` names it)',
      EADDRNOTAVAIL: 'set --healthz-ip to an address of this machine, or to 0.0.0.0',
      EACCES: 'choose a --healthz-port from 1024 on; lower ones need root or CAP_NET_BIND_SERVICE'
    }
    const place = `${ip.family === 6 ? `[${formatIp(ip)}]` : formatIp(ip)}:${port}`
    const cure = cures[cause.code ?? ''] ?? 'correct --healthz-ip and --healthz-port'
    reject(
      new WeftError('HTTP_LISTEN', `cannot listen on ${place} (--healthz-ip, --healthz-port): ${cause.message}`, cure, {
        cause
      })
    )
  })
  server.listen({ host: formatIp(ip), port }, resolve)
  return promise
}

async function answer(
  { health }: Wanted,
  texts: MetricsText,
  request: IncomingMessage,
  response: ServerResponse
): Promise<void> {
  const { status, type, body, isLast } = await page(health, texts, request).catch(
    (error): Page => plain(500, `${printable(reasonOf(error))}\n`)
  )
  const headers = {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    ...(isLast && { connection: 'close' })
  }
  response.writeHead(status, status === 405 ? { ...headers, allow: 'GET, HEAD' } : headers)
  // Node itself leaves the body of an answer to HEAD away.
  response.end(body)
}

async function page(health: Wanted['health'], texts: MetricsText, request: IncomingMessage): Promise<Page> {
  if (request.method !== 'GET' && request.method !== 'HEAD') return plain(405, 'GET or HEAD only\n')
  const [path, query] = (request.url ?? '/').split('?')
  switch (path) {
    case '/healthz':
      return plain(200, 'ok\n')
    case '/readyz':
      return readiness(health, new URLSearchParams(query).has('verbose'))
    case '/metrics':
      // The largest page by far: requests that wait behind this one on the connection would hold up probes.
      return { status: 200, type: texts.type, body: await texts.now(), isLast: true }
    default:
      return plain(404, 'there are /healthz, /readyz, /readyz?verbose and /metrics\n')
  }
}

/** What /metrics answers, made once for all that ask at about the same time. */
class MetricsText {
  readonly #metrics: Wanted['metrics']
  #text: Promise<string> | undefined
  #madeAt = 0

  constructor(metrics: Wanted['metrics']) {
    this.#metrics = metrics
  }

  get type(): string {
    return this.#metrics.registry.contentType
  }

  /** Rejects when a collector fails; the next call tries again. */
  now(): Promise<string> {
    const now = performance.now()
    if (this.#text !== undefined && now - this.#madeAt < SAME_TEXT) return this.#text
    const text = this.#metrics.registry.metrics()
    this.#text = text
    this.#madeAt = now
    text.catch(() => {
      this.#text = undefined
    })
    return text
  }
}

/**
 * 503 while a condition blocks readiness. The short form has the first blocking condition, the verbose form a line for
 * every active one.
 */
export function readiness(health: Pick<Health, 'active' | 'blocking'>, verbose: boolean): Page {
  const blocking = health.blocking('ready')
  const status = blocking === undefined ? 200 : 503
  if (!verbose) return plain(status, blocking === undefined ? 'ok\n' : `${blocking.code}: ${sentence(blocking)}\n`)
  const lines = health.active().map((condition) => {
    const blocks = condition.blocks.length === 0 ? 'blocks nothing' : `blocks ${condition.blocks.join(', ')}`
    return `[${condition.severity}] ${condition.code} (${blocks}, since ${new Date(condition.since).toISOString()}): ${sentence(condition)}`
  })
  return plain(status, `${[status === 200 ? 'ready' : 'not ready', ...lines].join('\n')}\n`)
}
