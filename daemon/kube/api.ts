// Requests to the Kubernetes API: deadlines, conditions while it does not answer or refuses, pauses, and errors that say what to do.
import type { IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { retry } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { JsonObject } from '../config/json.ts'
import type { Report } from '../health/report.ts'
import { KubeConnections, type KubeRequest, PROTOBUF } from './connections.ts'
import type { KubeAccess } from './credentials.ts'
import { bodyOfProtobuf, eventOfJson, eventOfProtobuf, type KubeBody, type StreamEvent, statusOf } from './protobuf.ts'
import { frames, jsonLines, parseObject, retryAfter, shorten, wholeBody } from './response-body.ts'

/** What the API server said where that is for the caller to judge: success, or 404, 409, 410, 422 with its Status. */
export type KubeReply = {
  readonly status: number
  /** Empty when protobuf came and no Status. */
  readonly body: JsonObject
}
export type KubeAnswer = KubeReply & {
  /** The same as it came. */
  readonly object: KubeBody
}

/** A request that failed; `retryAfterMs` when the API server said how long to stay away. */
export class KubeError extends WeftError {
  readonly status: number | undefined
  readonly retryAfterMs: number
  /** The Status object that came with it. */
  readonly said: JsonObject | undefined
  /** The same for every request that fails like that, for the condition: two that take turns must not look like a change each time. */
  readonly trouble: string

  constructor(
    code: 'STORE_UNREACHABLE' | 'STORE_DENIED',
    message: string,
    cure: string,
    more: {
      readonly status?: number
      readonly retryAfterMs?: number
      readonly said?: JsonObject | undefined
      readonly trouble?: string
      readonly cause?: unknown
    }
  ) {
    super(code, message, cure, more.cause === undefined ? undefined : { cause: more.cause })
    this.status = more.status
    this.retryAfterMs = more.retryAfterMs ?? 0
    this.said = more.said
    this.trouble = more.trouble ?? message
  }
}

/** Milliseconds for a whole call. */
const DEADLINE = 30_000
/** Statuses that tell the caller something about the object. */
const TELLING: readonly number[] = [404, 409, 410, 422]

export class KubeApi implements AsyncDisposable {
  readonly #access: KubeAccess
  readonly #report: Report
  readonly #connections: KubeConnections
  /** What is refused at present, by verb and path: one refusal does not end because something else is allowed. */
  readonly #denied = new Map<string, string>()

  /** Opens nothing yet. */
  constructor(access: KubeAccess, report: Report) {
    this.#access = access
    this.#report = report
    this.#connections = new KubeConnections(access)
  }

  /** Where, for messages. */
  get place(): string {
    return `the Kubernetes API at ${this.#access.target.server}`
  }

  /** Lets go of every connection: what is under way fails and is tried again. */
  reconnect(): void {
    this.#connections.renew()
  }

  /**
   * One request and its answer; a refused token is read again and tried once more. Raises or clears STORE_UNREACHABLE and STORE_DENIED. Errors:
   * KubeError for every status that `KubeAnswer` does not name, and when there is no answer; the signal's reason.
   */
  async call(request: KubeRequest, signal: AbortSignal): Promise<KubeAnswer> {
    const timeout = AbortSignal.timeout(DEADLINE)
    const either = AbortSignal.any([signal, timeout])
    try {
      const response = await this.#connections.open(request, either)
      const body = await wholeBody(response)
      const answer = this.#judge(request, response, body)
      this.#succeeded(request)
      return answer
    } catch (error) {
      signal.throwIfAborted()
      throw this.#failed(request, timeout.aborted ? new Error(`no answer within ${DEADLINE / 1000} s`) : error)
    }
  }

  /** A request that nothing depends on: no condition tells of its failure, which is a value. Errors: the signal's reason. */
  async attempt(request: KubeRequest, signal: AbortSignal): Promise<KubeReply | KubeError> {
    try {
      const response = await this.#connections.open(request, AbortSignal.any([signal, AbortSignal.timeout(DEADLINE)]))
      return this.#judge(request, response, await wholeBody(response))
    } catch (error) {
      signal.throwIfAborted()
      return error instanceof KubeError ? error : this.#unanswered(request, error)
    }
  }

  /** `call` until the API server answers, with pauses that grow, and never before it said that it will hear us again. */
  async persist(request: KubeRequest, signal: AbortSignal): Promise<KubeAnswer> {
    const onError = (error: unknown) => {
      if (!(error instanceof KubeError)) throw error
      return untilRetryAfter(error, signal)
    }
    try {
      return await retry(() => this.call(request, signal), { signal, onError })
    } catch (error) {
      this.#forget(request)
      throw error
    }
  }

  /**
   * The events of an answer that does not end: a watch. Ends when the API server ends it; errors as `call`, and whatever breaks the connection. A status
   * that `KubeAnswer` names is yielded as the only event, an ERROR.
   */
  async *events(request: KubeRequest, signal: AbortSignal): AsyncGenerator<StreamEvent, void> {
    const opening = AbortSignal.timeout(DEADLINE)
    const opened = new AbortController()
    const stopOpening = () => opened.abort(new Error(`no answer within ${DEADLINE / 1000} s`))
    opening.addEventListener('abort', stopOpening)
    let response: IncomingMessage
    try {
      response = await this.#connections.open(request, AbortSignal.any([signal, opened.signal]))
      if (response.statusCode !== 200) {
        const { status, body } = this.#judge(request, response, await wholeBody(response))
        yield { type: 'ERROR', object: { format: 'json', json: { ...body, code: status } } }
        return
      }
      this.#succeeded(request)
    } catch (error) {
      signal.throwIfAborted()
      throw this.#failed(request, error)
    } finally {
      opening.removeEventListener('abort', stopOpening)
    }
    try {
      if (isProtobuf(response)) for await (const frame of frames(response)) yield eventOfProtobuf(frame)
      else for await (const line of jsonLines(response)) yield eventOfJson(line)
    } finally {
      response.destroy()
    }
  }

  #judge({ verb, path }: KubeRequest, response: IncomingMessage, bytes: Buffer): KubeAnswer {
    const status = response.statusCode ?? 0
    const object = bodyOf(response, bytes)
    const succeeded = status >= 200 && status < 300
    if (object !== undefined && (succeeded || TELLING.includes(status))) {
      const body = object.format === 'json' ? object.json : succeeded ? {} : statusOf(object)
      return { status, body, object }
    }
    const said = object && statusOf(object)
    const words = typeof said?.message === 'string' ? said.message : shorten(bytes.toString())
    const what = `${verb} ${path} at ${this.place} was answered with ${status} ${response.statusMessage ?? ''}`.trim()
    const message = words === '' ? what : `${what}: ${words}`
    const trouble = `${this.place} answers with ${status} ${response.statusMessage ?? ''}: ${words}`
    const code = status === 401 || status === 403 ? 'STORE_DENIED' : 'STORE_UNREACHABLE'
    const retryAfterMs = retryAfter(response.headers['retry-after'], Date.now())
    throw new KubeError(code, message, this.#cure(status, said), { status, retryAfterMs, said, trouble })
  }

  #cure(status: number, said: JsonObject | undefined): string {
    if (status === 401) return `renew the token or certificate that ${this.#access.target.from} names`
    if (status === 403) return 'bind the user that the message names to a role with that verb (deploy/ has the list)'
    if (said === undefined)
      return `see that ${this.#access.target.server} (${this.#access.target.from}) is an API server`
    return 'see the log of the API server; weftd tries again by itself'
  }

  #succeeded(request: KubeRequest): void {
    this.#report.clear('STORE_UNREACHABLE')
    this.#forget(request)
  }

  /** A request that is not made any more, or was answered, keeps no condition. */
  #forget(request: KubeRequest): void {
    if (this.#denied.delete(named(request))) this.#tellDenied()
  }

  #tellDenied(): void {
    const [first] = this.#denied.values()
    if (first === undefined) this.#report.clear('STORE_DENIED')
    else this.#report.raise('STORE_DENIED', first)
  }

  #failed(request: KubeRequest, cause: unknown): KubeError {
    const error = cause instanceof KubeError ? cause : this.#unanswered(request, cause)
    if (error.code === 'STORE_DENIED') {
      this.#denied.set(named(request), `${error.message}. ${error.cure}`)
      this.#tellDenied()
    } else this.#report.raise('STORE_UNREACHABLE', error.trouble)
    return error
  }

  #unanswered({ verb, path }: KubeRequest, cause: unknown): KubeError {
    // A new authority may be what the connection lacked.
    this.#access.renew()
    const { server, from } = this.#access.target
    const reason = reasonOf(cause) || String((cause as { code?: unknown }).code)
    const message = `${verb} ${path} at ${this.place} failed: ${reason}`
    const isTls = /certificate|altname|TLS|SSL/i.test(
      `${(cause as { code?: unknown } | null)?.code} ${reasonOf(cause)}`
    )
    const cure = isTls
      ? `compare the authority and the name in the certificate with ${from}`
      : `see that ${server} (${from}) is right and that this node reaches it`
    return new KubeError('STORE_UNREACHABLE', message, cure, { cause, trouble: `${this.place}: ${reason}` })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connections[Symbol.dispose]()
  }
}

const isProtobuf = ({ headers }: IncomingMessage): boolean => headers['content-type']?.startsWith(PROTOBUF) === true

/** An object of the API, or `undefined` for whatever else came. */
function bodyOf(response: IncomingMessage, bytes: Buffer): KubeBody | undefined {
  try {
    if (isProtobuf(response)) return bodyOfProtobuf(bytes)
  } catch {
    return undefined
  }
  const json = parseObject(bytes.toString())
  return json && { format: 'json', json }
}

const named = ({ verb, path, query }: KubeRequest): string =>
  `${verb} ${query?.watch === undefined ? '' : 'watch '}${path}`

/** Waits as long as the API server asked for with Retry-After; the pause of the backoff comes after it. */
export async function untilRetryAfter(error: unknown, signal: AbortSignal): Promise<void> {
  if (error instanceof KubeError && error.retryAfterMs > 0) await sleep(error.retryAfterMs, undefined, { signal })
}
