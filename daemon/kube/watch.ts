// Lists a collection and watches it from there. A broken watch resumes at its last resourceVersion; only one that is
// too old makes it list again.
import { Backoff } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { type KubeApi, KubeError, untilRetryAfter } from './api.ts'
import { type KubeListing, listAll } from './list.ts'
import { type KubeBody, listOf, statusOf, versionOf } from './protobuf.ts'

/** Events with what `project` makes of each object. */
export type KubeEvent<T> =
  | { readonly kind: 'list'; readonly items: readonly T[] }
  | { readonly kind: 'put'; readonly item: T }
  | { readonly kind: 'gone'; readonly item: T }

export type KubeCollection<T> = Omit<KubeListing, 'page'> & {
  /**
   * Called on each object as it arrives, so that a page is not kept in memory. With `protobuf` set it must accept both
   * formats.
   */
  readonly project: (object: KubeBody) => T
}

export type Pace = {
  /** Objects in a page. */
  readonly page: number
  /**
   * Seconds after which the API server ends a watch: the minimum, and a random addition of at most `lifeJitterSeconds`.
   */
  readonly lifeSeconds: number
  readonly lifeJitterSeconds: number
  /**
   * Milliseconds of silence after which a watch is abandoned, once bookmarks have been seen: the API server sends one
   * per minute.
   */
  readonly silenceMs: number
  /** Milliseconds that a watch may outlast the timeout it requested. */
  readonly overtimeMs: number
}

/**
 * Pages of 100: with 5,000 nodes of 20 KB they take less memory than larger ones and no measurable time. Five to ten
 * minutes are client-go's timeout too.
 */
export const PACE: Pace = {
  page: 100,
  lifeSeconds: 300,
  lifeJitterSeconds: 300,
  silenceMs: 150_000,
  overtimeMs: 30_000
}

/** A watch that lasted this many milliseconds resets the backoff. */
const STEADY = 5_000

/** Ends only with the signal. Failures show in the conditions of `api` and the log. */
export async function* follow<T>(
  api: KubeApi,
  collection: KubeCollection<T>,
  log: Log,
  signal: AbortSignal,
  pace: Pace = PACE
): AsyncGenerator<KubeEvent<T>, void> {
  const backoff = new Backoff()
  const watch = new Watch(api, collection, pace)
  while (!signal.aborted) {
    // Time spent on listing does not count as a watch: a list that fails after minutes must not reset the backoff,
    // since the API server is overloaded.
    let begun = Number.POSITIVE_INFINITY
    try {
      if (watch.version === undefined) yield { kind: 'list', items: await watch.list(signal) }
      begun = performance.now()
      yield* watch.events(signal)
      if (performance.now() - begun > STEADY) backoff.reset()
      // Also after a regular end, in case a proxy ends every watch at once.
      else await backoff.pause(signal)
    } catch (error) {
      if (signal.aborted) return
      const reason = reasonOf(error)
      if (isOutdated(error)) {
        watch.version = undefined
        log.info({ path: collection.path, reason }, 'the API server cannot resume the watch; listing again')
      } else if (!(error instanceof KubeError)) {
        log.warn({ path: collection.path, reason }, 'the watch on the Kubernetes API broke; resuming it')
      }
      if (performance.now() - begun > STEADY) backoff.reset()
      await untilRetryAfter(error, signal)
        .then(() => backoff.pause(signal))
        .catch(() => undefined)
    }
  }
}

/**
 * The API server no longer has the resourceVersion from which a list or watch was to continue, or does not have it yet.
 */
class Outdated extends Error {}

const isOutdated = (error: unknown): boolean =>
  error instanceof Outdated ||
  (error instanceof KubeError &&
    (error.status === 400 || JSON.stringify(error.statusObject ?? null).includes('ResourceVersionTooLarge')))

class Watch<T> {
  /** The resourceVersion to watch from; `undefined`: list first. */
  version: string | undefined
  readonly #api: KubeApi
  readonly #collection: KubeCollection<T>
  readonly #pace: Pace
  /** Whether this API server sends bookmarks. */
  #bookmarks = false
  /** The next watch continues an earlier watch, not a list. */
  #resumes = false

  constructor(api: KubeApi, collection: KubeCollection<T>, pace: Pace) {
    this.#api = api
    this.#collection = collection
    this.#pace = pace
  }

  /**
   * All objects at one resourceVersion, which becomes the one to watch from. Errors: Outdated when paging took too
   * long, KubeError.
   */
  async list(signal: AbortSignal): Promise<readonly T[]> {
    const { project, ...kind } = this.#collection
    const items: T[] = []
    const listing = { ...kind, page: this.#pace.page }
    const listed = await listAll(this.#api, listing, (object) => items.push(project(object)), signal)
    if ('status' in listed) throw new Outdated(`${listed.status} ${listed.message}`)
    this.version = listed.version
    this.#resumes = false
    return items
  }

  /**
   * Changes since `version`, until the API server ends the watch. Errors: Outdated, KubeError, those of the connection.
   */
  async *events(signal: AbortSignal): AsyncGenerator<KubeEvent<T>, void> {
    if (this.#resumes) await this.#checkVersion(signal)
    this.#resumes = true
    const { path, query, protobuf } = this.#collection
    const seconds = Math.round(this.#pace.lifeSeconds + Math.random() * this.#pace.lifeJitterSeconds)
    const watchQuery = { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds: String(seconds) }
    const alive = new WatchTimeout(1000 * seconds, this.#pace.overtimeMs)
    const either = AbortSignal.any([signal, alive.signal])
    if (this.#bookmarks) alive.received(this.#pace.silenceMs)
    try {
      const fullQuery = { ...query, ...watchQuery, resourceVersion: this.version ?? '' }
      for await (const { type, object } of this.#api.events(
        { verb: 'GET', path, query: fullQuery, protobuf },
        either
      )) {
        const event = this.#event(type, object)
        if (this.#bookmarks) alive.received(this.#pace.silenceMs)
        if (event !== undefined) yield event
        // After the yield, so that an event that was not processed is sent again.
        this.version = versionOf(object) || this.version
      }
    } catch (error) {
      throw alive.signal.aborted ? alive.signal.reason : error
    } finally {
      alive.stop()
    }
  }

  #event(type: string, object: KubeBody): KubeEvent<T> | undefined {
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        return { kind: 'put', item: this.#collection.project(object) }
      case 'DELETED':
        return { kind: 'gone', item: this.#collection.project(object) }
      case 'BOOKMARK':
        this.#bookmarks = true
        return undefined
      default: {
        // ERROR, almost always 410. A new list is right after any other error, too.
        const { code, message, reason } = statusOf(object)
        throw new Outdated(`${code ?? type} ${String(message || reason || '')}`.trim())
      }
    }
  }

  /**
   * After etcd was restored from a backup, resourceVersions are lower, and the API server sends nothing until they
   * exceed the one a watch asks for: hours of silence without an error. They may be compared as numbers (Kubernetes
   * 1.35, KEP 5504; in fact in all earlier releases).
   */
  async #checkVersion(signal: AbortSignal): Promise<void> {
    const { path, query } = this.#collection
    const one = { ...query, limit: '1' }
    const { status, object } = await this.#api.call({ verb: 'GET', path, query: one, protobuf: true }, signal)
    const now = listOf(object).version
    if (status === 200 && Number(now) < Number(this.version))
      throw new Outdated(`the API server is at version ${now}, before ${this.version}: its etcd was restored`)
  }
}

/**
 * Aborts a watch that is silent for too long or outlasts its timeout: behind a dead proxy nothing else would end it.
 */
class WatchTimeout {
  readonly #ended = new AbortController()
  readonly #whole: NodeJS.Timeout
  #silence: NodeJS.Timeout | undefined

  constructor(lifeMs: number, overtimeMs: number) {
    const reason = `the watch is ${overtimeMs / 1000} s over its timeout`
    this.#whole = setTimeout(() => this.#end(reason), lifeMs + overtimeMs)
  }

  get signal(): AbortSignal {
    return this.#ended.signal
  }

  received(silenceMs: number): void {
    if (this.#silence === undefined)
      this.#silence = setTimeout(() => this.#end(`no event for ${silenceMs / 1000} s, not even a bookmark`), silenceMs)
    else this.#silence.refresh()
  }

  #end(reason: string): void {
    this.#ended.abort(new Error(reason))
  }

  stop(): void {
    clearTimeout(this.#whole)
    clearTimeout(this.#silence)
  }
}
