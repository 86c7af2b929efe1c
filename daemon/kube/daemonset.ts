// Whether weftd ends because it is replaced or because it is not wanted any more: its DaemonSet says so, and a pod's signal does not.
import { setTimeout as sleep } from 'node:timers/promises'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { JsonObject } from '../config/json.ts'
import type { KubeApi } from './api.ts'
import type { AccessOptions } from './credentials.ts'
import type { KubeBody } from './protobuf.ts'

/**
 * What the API says of the DaemonSet: that it is being deleted, or gone; or that we may not ask (403), or that our token counts no longer (401), as it does
 * not once our pod or our account has been deleted.
 */
export type Standing = 'stands' | 'deleted' | 'denied' | 'unknown'

export type DaemonSetEvents = {
  /** Rejects when there is no answer. */
  readonly ask: (signal: AbortSignal) => Promise<Standing>
  /** What has become of it, as it happens, until the signal. A watch goes on when token, role and account are gone: the API server asks for them when it begins. */
  readonly watch: (signal: AbortSignal) => AsyncIterable<'stands' | 'deleted'>
}

export type StandingPace = {
  /** Milliseconds between two questions until the DaemonSet was seen to stand, and from then on. */
  readonly againMs: number
  readonly lookMs: number
  /** Milliseconds for the watch to tell of the deletion, at the end. */
  readonly lateMs: number
}

/** One small request in five minutes for each node. A successor waits five seconds for us to go. */
const STANDING_PACE: StandingPace = { againMs: 10_000, lookMs: 300_000, lateMs: 3_000 }
/** Milliseconds for the question at the end. */
const LAST_QUESTION = 5_000

export class DaemonSetWatch implements Disposable {
  readonly #name: string
  readonly #news: DaemonSetEvents
  readonly #log: Log
  readonly #pace: StandingPace
  #hasStood = false
  /** The latest answer, and when it came, in milliseconds of the monotonic clock. */
  #last: { readonly standing: Standing; readonly at: number } | undefined
  /** The latest news of the watch. */
  #watched: 'stands' | 'deleted' | undefined
  readonly #changed = new Wakeup()
  /** The watch outlives the signal that ends us: what it tells then is what counts. */
  readonly #ended = new AbortController()

  /** `name`: NAMESPACE/NAME. */
  constructor(name: string, news: DaemonSetEvents, log: Log, pace = STANDING_PACE) {
    this.#name = name
    this.#news = news
    this.#log = log
    this.#pace = pace
  }

  /** Asks until the signal, and rejects with it: a refusal at the end means nothing to whoever was refused before. */
  async follow(signal: AbortSignal): Promise<never> {
    return (await Promise.all([this.#askAgain(signal), this.#watch()]))[0]
  }

  async #watch(): Promise<void> {
    for await (const news of this.#news.watch(this.#ended.signal)) {
      if (news === 'stands') this.#hasStood = true
      // A list without one that never stood is a wrong name.
      this.#watched = this.#hasStood ? news : undefined
      this.#changed.notify()
    }
  }

  async #askAgain(signal: AbortSignal): Promise<never> {
    for (;;) {
      const standing = await this.#news.ask(signal).catch(() => undefined)
      if (standing !== undefined) this.#heard(standing)
      const pause = this.#hasStood ? this.#pace.lookMs : this.#pace.againMs
      // Never the same on two nodes.
      await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal, ref: false })
    }
  }

  #heard(standing: Standing): void {
    if (standing === 'stands') this.#hasStood = true
    else if (this.#last?.standing !== standing) {
      const why = WHY[standing]
      this.#log.warn(
        { daemonset: this.#name },
        `the DaemonSet ${this.#name} is not known: ${why}; until it is, its deletion may leave this node as it is`
      )
    }
    this.#last = { standing, at: performance.now() }
  }

  /**
   * Asked when we were told to end. `kubectl delete -f deploy/` takes account and role away in the same breath as the DaemonSet. A role that is gone while our
   * token still counts is a deletion, if it was there a moment ago; one that has been gone for long (somebody took it away) is none. A token that counts no
   * longer may as well mean that our pod alone was deleted, by force: only the watch can tell. No answer (the machine goes down, the API
   * is away) is no deletion either: then everything stays as it is.
   */
  async isDeleted(): Promise<boolean> {
    const wasAllowed = this.#last?.standing === 'stands' && performance.now() - this.#last.at < 2 * this.#pace.lookMs
    const standing = await this.#news.ask(AbortSignal.timeout(LAST_QUESTION)).catch((error) => {
      this.#log.warn({ daemonset: this.#name, reason: reasonOf(error) }, 'nobody says whether the DaemonSet stands')
      return undefined
    })
    const isDeleted =
      this.#hasStood &&
      (standing === 'deleted' ||
        (standing === 'denied' && wasAllowed) ||
        (standing !== 'stands' && (await this.#isSeenDeleted(standing === 'unknown' ? this.#pace.lateMs : 0))))
    this.#log.info({ daemonset: this.#name, standing }, isDeleted ? GONE : standing === 'stands' ? STANDS : UNKNOWN)
    return isDeleted
  }

  /** Whether the watch has told of the deletion, or does within the time: a pod may hear of its end before. */
  async #isSeenDeleted(withinMs: number): Promise<boolean> {
    const late = AbortSignal.timeout(withinMs)
    while (this.#watched !== 'deleted' && !late.aborted) await this.#changed.next(late)
    return this.#watched === 'deleted'
  }

  /** Ends the watch. */
  [Symbol.dispose](): void {
    this.#ended.abort()
  }
}

const WHY = {
  deleted: 'there is none of this name',
  denied: 'we may not read it (verb get)',
  unknown: 'the API does not know our token'
} as const
const STANDS = 'the DaemonSet stands: this weftd is replaced'
const GONE = 'the DaemonSet is gone: leaving this node'
const UNKNOWN = 'nothing says that the DaemonSet was deleted; everything stays as it is'

/** The question to the API and the watch, over connections of their own: what they meet is no condition of the lease store. Errors: OPTION_INVALID, as the store's. */
export async function daemonSetEvents(name: string, options: AccessOptions, log: Log): Promise<DaemonSetEvents> {
  const { KubeAccess, targetOf } = await import('./credentials.ts')
  const { KubeApi } = await import('./api.ts')
  const { follow } = await import('./watch.ts')
  const api = new KubeApi(new KubeAccess(await targetOf(options), () => performance.now()), { raise() {}, clear() {} })
  const [namespace = '', daemonset = ''] = name.split('/')
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/daemonsets`
  const query = { fieldSelector: `metadata.name=${daemonset}` }
  const project = (body: KubeBody) => standingOf(body.format === 'json' ? body.json : {})
  return {
    ask: (signal) => asked(api, `${path}/${encodeURIComponent(daemonset)}`, daemonset, signal),
    async *watch(signal) {
      for await (const event of follow(api, { path, query, project, protobuf: false }, log, signal)) {
        if (event.kind === 'put') yield event.item
        else yield event.kind === 'gone' ? 'deleted' : (event.items[0] ?? 'deleted')
      }
    }
  }
}

async function asked(api: KubeApi, path: string, name: string, signal: AbortSignal): Promise<Standing> {
  const answer = await api.attempt({ verb: 'GET', path }, signal)
  if ('code' in answer) {
    if (answer.status === 401) return 'unknown'
    if (answer.status === 403) return 'denied'
    throw answer
  }
  const { status, body } = answer
  if (status === 200) return standingOf(body)
  if (saysGone(body, name)) return 'deleted'
  throw new Error(`GET ${path} was answered with ${status}: ${String(body.message)}`)
}

/** Of a DaemonSet that there is. */
const standingOf = ({ metadata }: JsonObject): 'stands' | 'deleted' =>
  (metadata as { readonly deletionTimestamp?: unknown } | undefined)?.deletionTimestamp === undefined
    ? 'stands'
    : 'deleted'

/** An API server that does not serve the group yet, or a proxy before it, answers 404 as well: only a Status that names what is missing says that it is gone. */
function saysGone({ reason, details }: JsonObject, name: string): boolean {
  const isAbout = typeof details === 'object' && details !== null && 'name' in details && details.name === name
  return reason === 'NotFound' && isAbout
}
