// Kubernetes API client: requests with deadlines and retries, streams, and the conditions that failures raise.
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

/** A response that the caller interprets: success, or 404, 409, 410 or 422 with a Status. */
export type KubeReply = {
  readonly status: number
  /** Empty for protobuf, except for a Status. */
  readonly body: JsonObject
}
export type KubeAnswer = KubeReply & {
  /** The response body, undecoded if protobuf. */
  readonly object: KubeBody
}

/** A failed request; `retryAfterMs` from the response's Retry-After. */
export class KubeError extends WeftError {
  readonly status: number | undefined
  readonly retryAfterMs: number
  /** The Status object in the response. */
  readonly statusObject: JsonObject | undefined
  /**
   * The detail of the condition. The same for all requests that fail for one reason, so that the condition does not
   * change with each of them.
   */
  readonly trouble: string

  constructor(
    code: 'STORE_UNREACHABLE' | 'STORE_DENIED',
    message: string,
    cure: string,
    more: {
      readonly status?: number
      readonly retryAfterMs?: number
      readonly statusObject?: JsonObject | undefined
      readonly trouble?: string
      readonly cause?: unknown
    }
  ) {
    super(code, message, cure, more.cause === undefined ? undefined : { cause: more.cause })
    this.status = more.status
    this.retryAfterMs = more.retryAfterMs ?? 0
    this.statusObject = more.statusObject
    this.trouble = more.trouble ?? message
  }
}

/** Milliseconds for one request with its response. */
const DEADLINE = 30_000
/** Statuses about the object, which the caller interprets. */
const EXPECTED: readonly number[] = [404, 409, 410, 422]

export class KubeApi implements AsyncDisposable {
  readonly #access: KubeAccess
  readonly #report: Report
  readonly #connections: KubeConnections
  /** Requests that are currently denied, by verb and path: STORE_DENIED lasts until each of them succeeds. */
  readonly #denied = new Map<string, KubeError>()

  /** Opens nothing yet. */
  constructor(access: KubeAccess, report: Report) {
    this.#access = access
    this.#report = report
    this.#connections = new KubeConnections(access)
  }

  /** Where the API is, for messages. */
  get place(): string {
    return `the Kubernetes API at ${this.#access.target.server}`
  }

  /** Closes every connection: requests in flight fail and are retried. */
  reconnect(): void {
    this.#connections.renew()
  }

  /**
   * One request; a rejected token is read from disk again and tried once more. Raises or clears STORE_UNREACHABLE and
   * STORE_DENIED. Errors: KubeError for every status that `KubeReply` does not list, and when there is no response; the
   * signal's reason.
   */
  async call(request: KubeRequest, signal: AbortSignal): Promise<KubeAnswer> {
    const timeout = AbortSignal.timeout(DEADLINE)
    const either = AbortSignal.any([signal, timeout])
    try {
      const response = await this.#connections.open(request, either)
      const body = await wholeBody(response)
      const answer = this.#interpret(request, response, body)
      this.#succeeded(request)
      return answer
    } catch (error) {
      signal.throwIfAborted()
      throw this.#failed(request, timeout.aborted ? new Error(`no answer within ${DEADLINE / 1000} s`) : error)
    }
  }

  /** One request whose failure raises no condition and is returned. Errors: the signal's reason. */
  async attempt(request: KubeRequest, signal: AbortSignal): Promise<KubeReply | KubeError> {
    try {
      const response = await this.#connections.open(request, AbortSignal.any([signal, AbortSignal.timeout(DEADLINE)]))
      return this.#interpret(request, response, await wholeBody(response))
    } catch (error) {
      signal.throwIfAborted()
      return error instanceof KubeError ? error : this.#unanswered(request, error)
    }
  }

  /** Repeats `call` until it succeeds, with backoff, and not before the time in Retry-After. */
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
   * The events of a watch. Ends when the API server ends it; errors as `call`, and those of the connection. A status
   * that `KubeReply` lists is yielded as the only event, an ERROR.
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
        const { status, body } = this.#interpret(request, response, await wholeBody(response))
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

  #interpret({ verb, path }: KubeRequest, response: IncomingMessage, bytes: Buffer): KubeAnswer {
    const status = response.statusCode ?? 0
    const object = bodyOf(response, bytes)
    const succeeded = status >= 200 && status < 300
    if (object !== undefined && (succeeded || EXPECTED.includes(status))) {
      const body = object.format === 'json' ? object.json : succeeded ? {} : statusOf(object)
      return { status, body, object }
    }
    const statusObject = object && statusOf(object)
    const text = typeof statusObject?.message === 'string' ? statusObject.message : shorten(bytes.toString())
    const what = `${verb} ${path} at ${this.place} was answered with ${status} ${response.statusMessage ?? ''}`.trim()
    const message = text === '' ? what : `${what}: ${text}`
    const trouble = `${this.place} answers with ${status} ${response.statusMessage ?? ''}: ${text}`
    const code = status === 401 || status === 403 ? 'STORE_DENIED' : 'STORE_UNREACHABLE'
    const retryAfterMs = retryAfter(response.headers['retry-after'], Date.now())
    throw new KubeError(code, message, this.#cure(status, statusObject), {
      status,
      retryAfterMs,
      statusObject,
      trouble
    })
  }

  #cure(status: number, statusObject: JsonObject | undefined): string {
    if (status === 401) return `renew the token or certificate that ${this.#access.target.from} names`
    if (status === 403) return 'bind that user to a role with that verb (deploy/20-rbac.yaml has the list)'
    if (statusObject === undefined)
      return `check that ${this.#access.target.server} (${this.#access.target.from}) is an API server`
    return 'check the log of the API server; weftd retries'
  }

  #succeeded(request: KubeRequest): void {
    this.#report.clear('STORE_UNREACHABLE')
    this.#forget(request)
  }

  /** A request that succeeded, or is no longer made, is not denied. */
  #forget(request: KubeRequest): void {
    if (this.#denied.delete(named(request))) this.#reportDenied()
  }

  #reportDenied(): void {
    const [first] = this.#denied.values()
    if (first === undefined) this.#report.clear('STORE_DENIED')
    else this.#report.raise('STORE_DENIED', first.message, first.cure)
  }

  #failed(request: KubeRequest, cause: unknown): KubeError {
    const error = cause instanceof KubeError ? cause : this.#unanswered(request, cause)
    if (error.code === 'STORE_DENIED') {
      this.#denied.set(named(request), error)
      this.#reportDenied()
    } else this.#report.raise('STORE_UNREACHABLE', error.trouble, error.cure)
    return error
  }

  #unanswered({ verb, path }: KubeRequest, cause: unknown): KubeError {
    // The credential plugin failed, and nothing was sent.
    if (cause instanceof WeftError && cause.code === 'STORE_DENIED')
      return new KubeError('STORE_DENIED', cause.message, cause.cure, { cause: cause.cause })
    // The connection may have failed because the authority on disk is newer.
    void this.#access.renew()
    const { server, from } = this.#access.target
    const reason = reasonOf(cause) || String((cause as { code?: unknown }).code)
    const message = `${verb} ${path} at ${this.place} failed: ${reason}`
    const isTls = /certificate|altname|TLS|SSL/i.test(
      `${(cause as { code?: unknown } | null)?.code} ${reasonOf(cause)}`
    )
    const cure = isTls
      ? `compare the authority and the name in the certificate with ${from}`
      : `check that ${server} (${from}) is right and that this node can reach it`
    return new KubeError('STORE_UNREACHABLE', message, cure, { cause, trouble: `${this.place}: ${reason}` })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#connections[Symbol.dispose]()
  }
}

const isProtobuf = ({ headers }: IncomingMessage): boolean => headers['content-type']?.startsWith(PROTOBUF) === true

/** An object of the API; `undefined` for any other body. */
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

/** Waits for the time in Retry-After, in addition to the pause of the backoff. */
export async function untilRetryAfter(error: unknown, signal: AbortSignal): Promise<void> {
  if (error instanceof KubeError && error.retryAfterMs > 0) await sleep(error.retryAfterMs, undefined, { signal })
}
