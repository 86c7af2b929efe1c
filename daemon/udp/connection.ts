// A connection to the proxy's socket, from weftd or from a proxy that takes over.
import { createConnection } from 'node:net'
import { lineReader } from './lines.ts'
import { type Answer, type Hello, parseFromProxy, type Request, requestText, type Status } from './protocol.ts'

/** Where the proxy listens. */
export const proxyPath = (stateDirectory: string): string => `${stateDirectory}/udp-proxy.sock`

/** Milliseconds that it has for its first line, and for each answer. */
const PATIENCE = 5_000

export type ProxyConnection = {
  readonly hello: Hello
  /** Resolves with the answer; `undefined` when there is none, and the connection is closed. */
  request(request: Request): Promise<Answer | undefined>
  /** Resolves when it is closed, by either side. */
  readonly closed: Promise<void>
  close(): void
}

type Listener = { readonly status?: (status: Status) => void }

/** `undefined`: nobody serves there, or nobody that is understood. */
export function connectTo(path: string, { status }: Listener): Promise<ProxyConnection | undefined> {
  const { promise, resolve } = Promise.withResolvers<ProxyConnection | undefined>()
  const { promise: closed, resolve: close } = Promise.withResolvers<void>()
  const socket = createConnection(path)
  const waiting: ((answer: Answer | undefined) => void)[] = []
  const timer = setTimeout(() => socket.destroy(), PATIENCE)
  const request = (of: Request): Promise<Answer | undefined> => {
    if (socket.destroyed) return Promise.resolve(undefined)
    const answered = Promise.withResolvers<Answer | undefined>()
    const late = setTimeout(() => socket.destroy(), PATIENCE)
    waiting.push((answer) => {
      clearTimeout(late)
      answered.resolve(answer)
    })
    socket.write(requestText(of))
    return answered.promise
  }
  const heard = lineReader((line) => {
    const said = parseFromProxy(line)
    if (said.kind === 'hello') {
      clearTimeout(timer)
      resolve({ hello: said.hello, request, closed, close: () => socket.destroy() })
    } else if (said.kind === 'status') status?.(said.status)
    else waiting.shift()?.(said.answer)
  })
  socket.setEncoding('utf8')
  socket.on('data', (text) => {
    try {
      heard(String(text))
    } catch {
      socket.destroy()
    }
  })
  socket.on('error', () => undefined)
  socket.on('close', () => {
    clearTimeout(timer)
    for (const answer of waiting.splice(0)) answer(undefined)
    resolve(undefined)
    close()
  })
  return promise
}
