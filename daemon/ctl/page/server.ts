// The server of the page: on 127.0.0.1 only, for whoever has the token of its URL, and for GET alone.
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Document } from './document.ts'

const HOST = '127.0.0.1'
/** Browsers open six. One more closes the one that has been idle for the longest time. */
const MOST_CONNECTIONS = 32
/** Octets: the longest request is for the path between two pods. */
const LONGEST_HEAD = 8 << 10

export type PageServer = AsyncDisposable & {
  /** With the token. */
  readonly url: string
}

export type PageOptions = {
  readonly document: Document
  /** 0: a free one. */
  readonly port: number
  /** What the page asks for, by the last part of its path: values of JSON. Errors become status 500 with their text. */
  readonly answers: Readonly<Record<string, (query: URLSearchParams) => Promise<unknown>>>
}

/** Errors: of listen(2), such as EADDRINUSE. */
export async function servePage(options: PageOptions): Promise<PageServer> {
  const token = randomBytes(24).toString('base64url')
  const server = createServer(
    { maxHeaderSize: LONGEST_HEAD, headersTimeout: 10_000, requestTimeout: 10_000, connectionsCheckingInterval: 5_000 },
    (request, response) => {
      const { port } = server.address() as AddressInfo
      answer(request, response, token, port, options).catch((error: unknown) => {
        end(response, 500, 'text/plain', error instanceof Error ? error.message : String(error), options.document)
      })
    }
  )
  keepFew(server, MOST_CONNECTIONS)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, HOST, resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://${HOST}:${port}/${token}/`,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
  }
}

/**
 * Closes the connection that has been idle for the longest time, when there are more than so many: with maxConnections
 * new ones would be refused while others that ask nothing wait for their time limit. With none idle, the new one.
 */
function keepFew(server: Server, most: number): void {
  // In the order in which they became idle.
  const idle = new Set<Socket>()
  let open = 0
  server.on('connection', (socket) => {
    open++
    idle.add(socket)
    socket.on('close', () => {
      open--
      idle.delete(socket)
    })
    if (open > most) idle.values().next().value?.destroy()
  })
  server.on('request', ({ socket }, response) => {
    idle.delete(socket)
    response.on('close', () => {
      if (!socket.destroyed) idle.add(socket)
    })
  })
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  token: string,
  port: number,
  { document, answers }: PageOptions
): Promise<void> {
  const plain = (status: number, text: string) => end(response, status, 'text/plain', text, document)
  // A name of another site that resolves to 127.0.0.1 (DNS rebinding) is in Host.
  const { host = '' } = request.headers
  if (host !== `${HOST}:${port}` && host !== `localhost:${port}`)
    return plain(421, `this server is http://${HOST}:${port} and nothing else\n`)
  if (request.method !== 'GET') {
    response.setHeader('Allow', 'GET')
    return plain(405, 'only GET is served\n')
  }
  const url = URL.parse(request.url ?? '', `http://${HOST}`)
  if (url === null) return plain(400, 'the address of the request is none\n')
  const { pathname, searchParams } = url
  const [, presented = '', name, ...deeper] = pathname.split('/')
  if (!isSame(presented, token) || name === undefined || deeper.length > 0)
    return plain(404, 'open the URL that weftctl page has printed\n')
  if (name === '') return end(response, 200, 'text/html', document.html, document)
  const asked = Object.hasOwn(answers, name) ? answers[name] : undefined
  if (asked === undefined) return plain(404, 'not found\n')
  end(response, 200, 'application/json', JSON.stringify(await asked(searchParams)), document)
}

/** In a time that does not depend on where they differ. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(a), digest(b))
}

function end(response: ServerResponse, status: number, type: string, body: string, { headers }: Document): void {
  if (response.headersSent) return
  response.writeHead(status, { ...headers, 'Content-Type': `${type}; charset=utf-8` })
  response.end(body)
}
