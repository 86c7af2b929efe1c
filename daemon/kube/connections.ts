// HTTP connections to the API server: a pool that is replaced when the credentials change; a request on a connection
// that was closed while idle is retried once.
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
  /** Accept protobuf: for large responses of which little is needed. */
  readonly protobuf?: boolean
}

export const PROTOBUF = 'application/vnd.kubernetes.protobuf'
/** Milliseconds of silence before the kernel sends TCP keep-alive probes. */
const PROBE = 10_000

export class KubeConnections implements Disposable {
  readonly #access: KubeAccess
  readonly #url: URL
  #agent: Agent | PlainAgent
  /** The credentials of the agent's connections. */
  #used: string | undefined

  /** Opens nothing yet. */
  constructor(access: KubeAccess) {
    this.#access = access
    this.#url = new URL(access.target.server)
    this.#agent = this.#newAgent()
  }

  /** Closes every connection: requests in flight fail. */
  renew(): void {
    const old = this.#agent
    this.#agent = this.#newAgent()
    old.destroy()
  }

  /**
   * The response's head. A rejected token is read from disk or issued again, since it may have been renewed. Errors: of
   * the connection; STORE_DENIED of a credential plugin; the signal's reason.
   */
  async open(request: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> {
    await this.#access.ready()
    const { token, cert } = this.#access.credentials
    const response = await this.#once(request, signal)
    if (response.statusCode !== 401) return response
    await this.#access.replaceRejected()
    const now = this.#access.credentials
    if (now.token === token && now.cert === cert) return response
    response.resume()
    return this.#once(request, signal)
  }

  /** Retries once on a new connection when the API server had closed a reused one while it was idle. */
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

  /** A new pool when certificates or authorities have changed; requests on the old one continue. */
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
