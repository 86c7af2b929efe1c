// Events in the Kubernetes API: what `kubectl describe node` shows of our conditions. One object for each kind of trouble, renewed, never a flood.
import { setTimeout as sleep } from 'node:timers/promises'
import { retry } from '../base/backoff.ts'
import type { Log } from '../base/log.ts'
import type { JsonObject } from '../config/json.ts'
import { type Condition, type ConditionCode, sentence } from '../health/conditions.ts'
import { type KubeApi, KubeError, untilRetryAfter } from './api.ts'

/** The object that an event is about. */
export type Regarding = {
  readonly apiVersion: string
  readonly kind: string
  readonly name: string
  readonly uid: string
  readonly namespace?: string
}

export type Saying = {
  readonly regarding: Regarding
  readonly type: 'Warning' | 'Normal'
  /** In CamelCase. */
  readonly reason: string
  readonly message: string
}

export type EventPace = {
  /** Milliseconds: what is over sooner is not worth an event. */
  readonly settleMs: number
  /** Milliseconds between two warnings about one condition. */
  readonly apartMs: number
}

export const EVENT_PACE: EventPace = { settleMs: 5_000, apartMs: 60_000 }
/** Characters of a message: events.k8s.io/v1 takes 1,024 bytes. */
const LONGEST = 1_000

/** Events that are counted up; policies come and go for years, and an older one of theirs is written anew. */
const MOST_WRITTEN = 1_000

/** `POD_CIDR_MISSING` → `PodCidrMissing`. */
export const reasonOfCode = (code: string): string =>
  code.replace(/([A-Z])([A-Z]*)_?/g, (_, first: string, rest: string) => first + rest.toLowerCase())

/** Writes events; the same reason about the same object is one event that is counted up for as long as the API server keeps it (an hour by default). */
export class EventWriter {
  readonly #api: Pick<KubeApi, 'attempt'>
  readonly #log: Log
  readonly #node: () => string
  /** The latest last. */
  readonly #written = new Map<string, { readonly path: string; readonly count: number }>()
  #told = false

  /** `node` names the node that reports. */
  constructor(api: Pick<KubeApi, 'attempt'>, log: Log, node: () => string) {
    this.#api = api
    this.#log = log
    this.#node = node
  }

  /** Tries until the API server has taken it or forbids it; a refusal is logged once. Errors: the signal's reason. */
  async write(saying: Saying, since: number, signal: AbortSignal): Promise<void> {
    const attempt = async () => {
      const failure = await this.#once(saying, since, signal)
      if (failure === undefined) return true
      const { status } = failure
      if (status === undefined || status < 400 || status >= 500 || status === 429) throw failure
      if (!this.#told) this.#log.warn({ reason: failure.message }, 'events can not be written')
      this.#told = true
      return false
    }
    const onError = (error: unknown) => {
      if (!(error instanceof KubeError)) throw error
      return untilRetryAfter(error, signal)
    }
    await retry(attempt, { signal, onError })
  }

  async #once(saying: Saying, since: number, signal: AbortSignal): Promise<KubeError | undefined> {
    const { regarding, reason, type } = saying
    const key = [regarding.kind, regarding.namespace, regarding.name, regarding.uid, reason, type].join(' ')
    const before = this.#written.get(key)
    const message = saying.message.length > LONGEST ? `${saying.message.slice(0, LONGEST - 1)}…` : saying.message
    const lastTimestamp = timestamp(Date.now())
    if (before !== undefined) {
      const count = before.count + 1
      const body = { count, lastTimestamp, message }
      const answer = await this.#api.attempt({ verb: 'PATCH', path: before.path, body }, signal)
      if (answer instanceof KubeError) return answer
      this.#written.delete(key)
      if (answer.status === 200) this.#remember(key, { ...before, count })
      // Older than the API server keeps events: a new one.
      return answer.status === 200 ? undefined : this.#once(saying, since, signal)
    }
    // Objects without a namespace have their events in `default`.
    const path = `/api/v1/namespaces/${regarding.namespace ?? 'default'}/events`
    const name = `${regarding.name.slice(0, 200)}.${(BigInt(Date.now()) * 1000n + BigInt(Math.floor(Math.random() * 1000))).toString(16)}`
    const about = { ...{ regarding, reason, type, message }, ...{ name, since: timestamp(since), lastTimestamp } }
    const body = eventObject(about, this.#node())
    const answer = await this.#api.attempt({ verb: 'POST', path, body }, signal)
    if (answer instanceof KubeError) return answer
    if (answer.status === 201) this.#remember(key, { path: `${path}/${name}`, count: 1 })
    // 404: the namespace is being removed; 409: the name is taken, which the next event's is not.
    else this.#log.debug({ status: answer.status, event: name }, 'an event was not taken')
    return undefined
  }

  #remember(key: string, written: { readonly path: string; readonly count: number }): void {
    this.#written.set(key, written)
    const [oldest] = this.#written.keys()
    if (this.#written.size > MOST_WRITTEN && oldest !== undefined) this.#written.delete(oldest)
  }
}

type About = Saying & { readonly name: string; readonly since: string; readonly lastTimestamp: string }

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

/** RFC 3339 in seconds: events know no finer time. */
const timestamp = (milliseconds: number): string => new Date(milliseconds).toISOString().replace(/\.\d+/, '')

type Told = {
  latest: { readonly condition: Condition; readonly active: boolean; readonly at: number }
  /** The sentence of the last warning that has not been called over. */
  warned?: string | undefined
  /** Before then no further warning. */
  notBefore: number
  working: boolean
}

/** Conditions as events about our node: a warning when one begins or changes its words, a normal event when it is over. */
export class ConditionEvents implements AsyncDisposable {
  readonly #writer: EventWriter
  readonly #node: () => Regarding | undefined
  readonly #pace: EventPace
  readonly #told = new Map<ConditionCode, Told>()
  readonly #ended = new AbortController()

  /** `node` is our node as soon as it is known. */
  constructor(writer: EventWriter, node: () => Regarding | undefined, pace = EVENT_PACE) {
    this.#writer = writer
    this.#node = node
    this.#pace = pace
  }

  tell(condition: Condition, active: boolean): void {
    // Every start has it, and what makes a start long is a condition of its own.
    if (condition.code === 'STARTING' || this.#ended.signal.aborted) return
    const latest = { condition, active, at: Date.now() }
    const told = this.#told.get(condition.code) ?? { latest, notBefore: 0, working: false }
    told.latest = latest
    this.#told.set(condition.code, told)
    if (told.working) return
    told.working = true
    // Only the end of the daemon stops it early.
    this.#work(told).catch(() => undefined)
  }

  async #work(told: Told): Promise<void> {
    for (;;) {
      const before = told.latest
      const wait = before.active ? Math.max(this.#pace.settleMs, told.notBefore - Date.now()) : this.#pace.settleMs
      await sleep(wait, undefined, { signal: this.#ended.signal, ref: false })
      const seen = told.latest
      await this.#publish(told, seen)
      if (told.latest === seen) break
    }
    told.working = false
  }

  async #publish(told: Told, { condition, active, at }: Told['latest']): Promise<void> {
    const text = sentence(condition)
    const lasted = at - condition.since
    // What ended before anybody could be told is told then, if it was long: the API server out of reach, above all.
    if (active ? told.warned !== text : told.warned === undefined && lasted >= this.#pace.settleMs) {
      const message = active ? text : `for ${Math.round(lasted / 1000)} s: ${text}`
      await this.#write('Warning', condition, message)
      told.warned = text
      told.notBefore = Date.now() + this.#pace.apartMs
    }
    if (active || told.warned === undefined) return
    await this.#write('Normal', condition, `no longer: ${condition.title}`)
    told.warned = undefined
  }

  async #write(type: Saying['type'], { code, since }: Condition, message: string): Promise<void> {
    const { signal } = this.#ended
    const regarding = await retry(this.#node, { signal })
    await this.#writer.write({ regarding, type, reason: reasonOfCode(code), message }, since, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
  }
}
