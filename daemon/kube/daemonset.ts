// Watches the DaemonSet of this weftd, to distinguish at the end whether weftd is being replaced or was deleted: the
// pod's signal is the same.
import { Backoff } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { JsonObject } from '../config/json.ts'
import type { KubeApi } from './api.ts'
import type { AccessOptions } from './credentials.ts'
import type { KubeBody } from './protobuf.ts'

/**
 * The DaemonSet in the API. `deleted`: being deleted, or gone; `denied`: we may not read it (403); `unknown`: our token
 * is no longer valid (401), as after the deletion of our pod or service account.
 */
export type DaemonSetState = 'exists' | 'deleted' | 'denied' | 'unknown'

export type DaemonSetEvents = {
  /** Rejects without a response. */
  readonly ask: (signal: AbortSignal) => Promise<DaemonSetState>
  /**
   * Changes until the signal. A watch survives the deletion of token, role and account, which the API server checks
   * when it begins.
   */
  readonly watch: (signal: AbortSignal) => AsyncIterable<'exists' | 'deleted'>
}

export type DaemonSetPace = {
  /** Milliseconds between two requests, or up to half as much again, before the DaemonSet has been seen, and after. */
  readonly againMs: number
  readonly lookMs: number
  /** Milliseconds at the end for the watch to report the deletion. */
  readonly lateMs: number
}

/** One small request per node in five minutes. A successor waits five seconds for us to end. */
const PACE: DaemonSetPace = { againMs: 10_000, lookMs: 300_000, lateMs: 3_000 }
/** Milliseconds for the request at the end. */
const LAST_REQUEST = 5_000

export class DaemonSetWatch implements Disposable {
  readonly #name: string
  readonly #events: DaemonSetEvents
  readonly #log: Log
  readonly #pace: DaemonSetPace
  #wasSeen = false
  /** The latest response, and when it came, in monotonic milliseconds. */
  #last: { readonly state: DaemonSetState; readonly at: number } | undefined
  /** The latest event of the watch. */
  #watched: 'exists' | 'deleted' | undefined
  readonly #changed = new Wakeup()
  /** The watch outlives the signal that ends us, since its events after that decide. */
  readonly #ended = new AbortController()

  /** `name`: NAMESPACE/NAME. */
  constructor(name: string, events: DaemonSetEvents, log: Log, pace = PACE) {
    this.#name = name
    this.#events = events
    this.#log = log
    this.#pace = pace
  }

  /** Polls and watches until the signal, and rejects with it. Polling shows whether a denial at the end is new. */
  async follow(signal: AbortSignal): Promise<never> {
    return (await Promise.all([this.#askAgain(signal), this.#watch()]))[0]
  }

  async #watch(): Promise<void> {
    for await (const event of this.#events.watch(this.#ended.signal)) {
      if (event === 'exists') this.#wasSeen = true
      // Absent from the list without having been seen: the name is wrong.
      this.#watched = this.#wasSeen ? event : undefined
      this.#changed.notify()
    }
  }

  async #askAgain(signal: AbortSignal): Promise<never> {
    const [often, seldom] = [Backoff.constant(this.#pace.againMs), Backoff.constant(this.#pace.lookMs)]
    for (;;) {
      const state = await this.#events.ask(signal).catch(() => undefined)
      if (state !== undefined) this.#note(state)
      await (this.#wasSeen ? seldom : often).pause(signal)
    }
  }

  #note(state: DaemonSetState): void {
    if (state === 'exists') this.#wasSeen = true
    else if (this.#last?.state !== state) {
      const why = WHY[state]
      this.#log.warn(
        { daemonset: this.#name },
        `the DaemonSet ${this.#name} cannot be read: ${why}; if it is deleted meanwhile, this node may not be cleaned up`
      )
    }
    this.#last = { state, at: performance.now() }
  }

  /**
   * Called when weftd is asked to end. `kubectl delete -f deploy/` deletes account and role together with the
   * DaemonSet. A denial with a valid token means deletion if access was allowed a moment ago; if it has been denied for
   * long (an administrator removed the role), it does not. An invalid token can also mean that only our pod was
   * deleted, by force: then the watch decides. Without a response (the machine shuts down, the API is unreachable)
   * nothing is removed.
   */
  async isDeleted(): Promise<boolean> {
    const wasAllowed = this.#last?.state === 'exists' && performance.now() - this.#last.at < 2 * this.#pace.lookMs
    const state = await this.#events.ask(AbortSignal.timeout(LAST_REQUEST)).catch((error) => {
      this.#log.warn(
        { daemonset: this.#name, reason: reasonOf(error) },
        'the API does not say whether the DaemonSet exists'
      )
      return undefined
    })
    const isDeleted =
      this.#wasSeen &&
      (state === 'deleted' ||
        (state === 'denied' && wasAllowed) ||
        (state !== 'exists' && (await this.#isSeenDeleted(state === 'unknown' ? this.#pace.lateMs : 0))))
    this.#log.info({ daemonset: this.#name, state }, isDeleted ? DELETED : state === 'exists' ? EXISTS : UNKNOWN)
    return isDeleted
  }

  /** Whether the watch reports the deletion within the time: the pod's signal may come first. */
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
  denied: 'weftd may not read it (verb get)',
  unknown: 'the API server rejects our token'
} as const
const EXISTS = 'the DaemonSet exists: this weftd is being replaced'
const DELETED = 'the DaemonSet was deleted: cleaning up this node'
const UNKNOWN = 'no evidence that the DaemonSet was deleted; this node is left unchanged'

/**
 * Requests and watch on connections of their own, since their failures are no conditions of the lease store. Errors:
 * OPTION_INVALID.
 */
export async function daemonSetEvents(name: string, options: AccessOptions, log: Log): Promise<DaemonSetEvents> {
  const { KubeAccess, targetOf } = await import('./credentials.ts')
  const { KubeApi } = await import('./api.ts')
  const { follow } = await import('./watch.ts')
  const api = new KubeApi(await KubeAccess.open(await targetOf(options), () => performance.now(), options), {
    raise() {},
    clear() {}
  })
  const [namespace = '', daemonset = ''] = name.split('/')
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/daemonsets`
  const query = { fieldSelector: `metadata.name=${daemonset}` }
  const project = (body: KubeBody) => stateOf(body.format === 'json' ? body.json : {})
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

async function asked(api: KubeApi, path: string, name: string, signal: AbortSignal): Promise<DaemonSetState> {
  const answer = await api.attempt({ verb: 'GET', path }, signal)
  if ('code' in answer) {
    if (answer.status === 401) return 'unknown'
    if (answer.status === 403) return 'denied'
    throw answer
  }
  const { status, body } = answer
  if (status === 200) return stateOf(body)
  if (saysGone(body, name)) return 'deleted'
  throw new Error(`GET ${path} was answered with ${status}: ${String(body.message)}`)
}

/** Of an existing DaemonSet. */
const stateOf = ({ metadata }: JsonObject): 'exists' | 'deleted' =>
  (metadata as { readonly deletionTimestamp?: unknown } | undefined)?.deletionTimestamp === undefined
    ? 'exists'
    : 'deleted'

/**
 * An API server that does not serve the group yet, or a proxy, also answers 404: only a Status that names the object
 * means that it is gone.
 */
function saysGone({ reason, details }: JsonObject, name: string): boolean {
  const isAbout = typeof details === 'object' && details !== null && 'name' in details && details.name === name
  return reason === 'NotFound' && isAbout
}
