// Writes Kubernetes events: conditions as events on our node, one object per condition, counted up and rate-limited.
import { setTimeout as sleep } from 'node:timers/promises'
import { retry } from '../base/backoff.ts'
import type { Log } from '../base/log.ts'
import type { JsonObject } from '../config/json.ts'
import { type Condition, type ConditionCode, sentence } from '../health/conditions.ts'
import { type KubeApi, KubeError, untilRetryAfter } from './api.ts'

/** The subject of an event. */
export type Regarding = {
  readonly apiVersion: string
  readonly kind: string
  readonly name: string
  readonly uid: string
  readonly namespace?: string
}

export type EventContent = {
  readonly regarding: Regarding
  readonly type: 'Warning' | 'Normal'
  /** In CamelCase. */
  readonly reason: string
  readonly message: string
}

export type EventPace = {
  /** Milliseconds: a condition that ends sooner causes no event. */
  readonly settleMs: number
  /** Milliseconds between two warnings about one condition. */
  readonly apartMs: number
}

export const EVENT_PACE: EventPace = { settleMs: 5_000, apartMs: 60_000 }
/** Characters of a message: events.k8s.io/v1 allows 1,024 bytes. */
const LONGEST = 1_000

/** Events that can be counted up; beyond that the oldest is forgotten, and written as a new event if it recurs. */
const MOST_WRITTEN = 1_000

/** `POD_CIDR_MISSING` → `PodCidrMissing`. */
export const reasonOfCode = (code: string): string =>
  code.replace(/([A-Z])([A-Z]*)_?/g, (_, first: string, rest: string) => first + rest.toLowerCase())

/**
 * Writes events. Events with one reason about one object share an event object, counted up as long as the API server
 * keeps it (an hour by default).
 */
export class EventWriter {
  readonly #api: Pick<KubeApi, 'attempt'>
  readonly #log: Log
  readonly #node: () => string
  /** Most recent last. */
  readonly #written = new Map<string, { readonly path: string; readonly count: number }>()
  #refusalLogged = false

  /** `node` returns the name of the reporting node. */
  constructor(api: Pick<KubeApi, 'attempt'>, log: Log, node: () => string) {
    this.#api = api
    this.#log = log
    this.#node = node
  }

  /**
   * Retries until the API server accepts or rejects the event; the first rejection is logged. Errors: the signal's
   * reason.
   */
  async write(content: EventContent, since: number, signal: AbortSignal): Promise<void> {
    const attempt = async () => {
      const failure = await this.#once(content, since, signal)
      if (failure === undefined) return true
      const { status } = failure
      if (status === undefined || status < 400 || status >= 500 || status === 429) throw failure
      if (!this.#refusalLogged) this.#log.warn({ reason: failure.message }, 'events cannot be written')
      this.#refusalLogged = true
      return false
    }
    const onError = (error: unknown) => {
      if (!(error instanceof KubeError)) throw error
      return untilRetryAfter(error, signal)
    }
    await retry(attempt, { signal, onError })
  }

  async #once(content: EventContent, since: number, signal: AbortSignal): Promise<KubeError | undefined> {
    const { regarding, reason, type } = content
    const key = [regarding.kind, regarding.namespace, regarding.name, regarding.uid, reason, type].join(' ')
    const before = this.#written.get(key)
    const message = content.message.length > LONGEST ? `${content.message.slice(0, LONGEST - 1)}…` : content.message
    const lastTimestamp = timestamp(Date.now())
    if (before !== undefined) {
      const count = before.count + 1
      const body = { count, lastTimestamp, message }
      const answer = await this.#api.attempt({ verb: 'PATCH', path: before.path, body }, signal)
      if (answer instanceof KubeError) return answer
      this.#written.delete(key)
      if (answer.status === 200) this.#remember(key, { ...before, count })
      // The API server has deleted the old event: write a new one.
      return answer.status === 200 ? undefined : this.#once(content, since, signal)
    }
    // Events about cluster-scoped objects are in `default`.
    const path = `/api/v1/namespaces/${regarding.namespace ?? 'default'}/events`
    const name = `${regarding.name.slice(0, 200)}.${(BigInt(Date.now()) * 1000n + BigInt(Math.floor(Math.random() * 1000))).toString(16)}`
    const about = { ...{ regarding, reason, type, message }, ...{ name, since: timestamp(since), lastTimestamp } }
    const body = eventObject(about, this.#node())
    const answer = await this.#api.attempt({ verb: 'POST', path, body }, signal)
    if (answer instanceof KubeError) return answer
    if (answer.status === 201) this.#remember(key, { path: `${path}/${name}`, count: 1 })
    // 404: the namespace is being deleted; 409: the name exists, which the next event's will not.
    else this.#log.debug({ status: answer.status, event: name }, 'an event was rejected')
    return undefined
  }

  #remember(key: string, written: { readonly path: string; readonly count: number }): void {
    this.#written.set(key, written)
    const [oldest] = this.#written.keys()
    if (this.#written.size > MOST_WRITTEN && oldest !== undefined) this.#written.delete(oldest)
  }
}

type About = EventContent & { readonly name: string; readonly since: string; readonly lastTimestamp: string }

const eventObject = (
  { regarding, reason, type, message, name, since, lastTimestamp }: About,
  node: string
): JsonObject => ({
  apiVersion: 'v1',
  kind: 'Event',
  metadata: { name, namespace: regarding.namespace ?? 'default' },
  involvedObject: regarding,
  ...{ reason, message, type, count: 1, firstTimestamp: since, lastTimestamp },
  source: { component: 'weftd', host: node },
  reportingComponent: 'weftd',
  reportingInstance: node
})

/** RFC 3339 in whole seconds, the resolution of events. */
const timestamp = (milliseconds: number): string => new Date(milliseconds).toISOString().replace(/\.\d+/, '')

type Reported = {
  latest: { readonly condition: Condition; readonly active: boolean; readonly at: number }
  /** The sentence of the last warning, until its end has been reported. */
  warned?: string | undefined
  /** No further warning before this time. */
  notBefore: number
  working: boolean
}

/** Conditions as events about our node: a warning when one begins or its text changes, a normal event when it ends. */
export class ConditionEvents implements AsyncDisposable {
  readonly #writer: EventWriter
  readonly #node: () => Regarding | undefined
  readonly #pace: EventPace
  readonly #reported = new Map<ConditionCode, Reported>()
  readonly #ended = new AbortController()

  /** `node` returns our node once it is known. */
  constructor(writer: EventWriter, node: () => Regarding | undefined, pace = EVENT_PACE) {
    this.#writer = writer
    this.#node = node
    this.#pace = pace
  }

  onCondition(condition: Condition, active: boolean): void {
    // Every start has it; what delays a start has a condition of its own.
    if (condition.code === 'STARTING' || this.#ended.signal.aborted) return
    const latest = { condition, active, at: Date.now() }
    const reported = this.#reported.get(condition.code) ?? { latest, notBefore: 0, working: false }
    reported.latest = latest
    this.#reported.set(condition.code, reported)
    if (reported.working) return
    reported.working = true
    // Rejects only when the daemon ends.
    this.#work(reported).catch(() => undefined)
  }

  async #work(reported: Reported): Promise<void> {
    for (;;) {
      const before = reported.latest
      const wait = before.active ? Math.max(this.#pace.settleMs, reported.notBefore - Date.now()) : this.#pace.settleMs
      await sleep(wait, undefined, { signal: this.#ended.signal, ref: false })
      const seen = reported.latest
      await this.#publish(reported, seen)
      if (reported.latest === seen) break
    }
    reported.working = false
  }

  async #publish(reported: Reported, { condition, active, at }: Reported['latest']): Promise<void> {
    const text = sentence(condition)
    const lasted = at - condition.since
    // A condition that ended before it could be reported is reported afterwards if it was long, above all an
    // unreachable API server.
    if (active ? reported.warned !== text : reported.warned === undefined && lasted >= this.#pace.settleMs) {
      const message = active ? text : `for ${Math.round(lasted / 1000)} s: ${text}`
      await this.#write('Warning', condition, message)
      reported.warned = text
      reported.notBefore = Date.now() + this.#pace.apartMs
    }
    if (active || reported.warned === undefined) return
    await this.#write('Normal', condition, `no longer: ${condition.title}`)
    reported.warned = undefined
  }

  async #write(type: EventContent['type'], { code, since }: Condition, message: string): Promise<void> {
    const { signal } = this.#ended
    const regarding = await retry(this.#node, { signal })
    await this.#writer.write({ regarding, type, reason: reasonOfCode(code), message }, since, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
  }
}
