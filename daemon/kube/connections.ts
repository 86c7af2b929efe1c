// Connections to the API server over node:https: one pool of kept ones, made anew when the credentials change, and tried once more where one was closed while idle.
import { type IncomingMessage, Agent as PlainAgent, type RequestOptions, request as requestPlain } from 'node:http'
import { Agent, request as requestSecure } from 'node:https'
import type { JsonObject } from '../config/json.ts'
import type { KubeAccess } from './credentials.ts'

type Verb = 'GET' | 'POST' | 'PATCH'

export type KubeRequest = {
  readonly verb: Verb
  /** As `/api/v1/nodes/n1`. */
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  readonly body?: JsonObject
  /** Ask for protobuf, where the answer is long and little of it is needed. */
  readonly protobuf?: boolean
}

export const PROTOBUF = 'application/vnd.kubernetes.protobuf'
/** Milliseconds before the kernel asks whether the other end of a silent connection still lives. */
const PROBE = 10_000

export class KubeConnections implements Disposable {
  readonly #access: KubeAccess
  readonly #url: URL
  #agent: Agent | PlainAgent
  /** The credentials that the agent's connections were made with. */
  #used: string | undefined

  /** Opens nothing yet. */
  constructor(access: KubeAccess) {
    this.#access = access
    this.#url = new URL(access.target.server)
    this.#agent = this.#newAgent()
  }

  /** Lets go of every connection: what is under way fails. */
  renew(): void {
    const old = this.#agent
    this.#agent = this.#newAgent()
    old.destroy()
  }

  /** The answer's head; a token that is refused may have been renewed on the disk. Errors: whatever breaks the connection, the signal's reason. */
  async open(request: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { token } = this.#access.credentials
    const response = await this.#once(request, signal)
    if (response.statusCode !== 401) return response
    this.#access.renew()
    if (this.#access.credentials.token === token) return response
    response.resume()
    return this.#once(request, signal)
  }

  /** A connection that the API server closed while it was idle is not the request's fault. */
  async #once(request: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> {
    for (let again = false; ; again = true) {
      const sent = this.#send(request, signal)
      try {
        return await sent.response
      } catch (error) {
        if (again || signal.aborted || !sent.reused() || request.verb === 'POST') throw error
      }
    }
  }

  #send(
    { verb, path, query = {}, body, protobuf = false }: KubeRequest,
    signal: AbortSignal
  ): { readonly response: Promise<IncomingMessage>; readonly reused: () => boolean } {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const search = new URLSearchParams(query).toString()
    const text = body === undefined ? undefined : JSON.stringify(body)
    const { token } = this.#access.credentials
    const options: RequestOptions = {
      method: verb,
      agent: this.#agentNow(),
      host: this.#url.hostname.replace(/^\[(.*)\]$/, '$1'),
      port: this.#url.port || (this.#url.protocol === 'https:' ? 443 : 80),
      path: `${this.#url.pathname.replace(/\/$/, '')}${path}${search === '' ? '' : `?${search}`}`,
      signal,
      headers: {
        accept: protobuf ? `${PROTOBUF},application/json` : 'application/json',
        'user-agent': 'weftd',
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(text !== undefined && {
          'content-type': verb === 'PATCH' ? 'application/strategic-merge-patch+json' : 'application/json',
          'content-length': Buffer.byteLength(text)
        })
      }
    }
    const sent = this.#url.protocol === 'https:' ? requestSecure(options) : requestPlain(options)
    sent.on('socket', (socket) => socket.setKeepAlive(true, PROBE))
    sent.on('response', resolve)
    sent.on('error', reject)
    sent.end(text)
    return { response: promise, reused: () => sent.reusedSocket }
  }

  /** A new pool when certificates or authorities have changed; what runs over the old one goes on. */
  #agentNow(): Agent | PlainAgent {
    const { ca, cert, key } = this.#access.credentials
    const now = [ca, cert, key].join('\0')
    if (this.#used !== undefined && this.#used !== now) this.#agent = this.#newAgent()
    this.#used = now
    return this.#agent
  }

  #newAgent(): Agent | PlainAgent {
    const pool = { keepAlive: true, keepAliveMsecs: PROBE, maxSockets: 16, maxFreeSockets: 2 }
    if (this.#url.protocol !== 'https:') return new PlainAgent(pool)
    const { ca, cert, key } = this.#access.credentials
    const { serverName, insecure } = this.#access.target
    return new Agent({
      ...pool,
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      ...(serverName !== undefined && { servername: serverName }),
      rejectUnauthorized: !insecure
    })
  }

  [Symbol.dispose](): void {
    this.#agent.destroy()
  }
}
