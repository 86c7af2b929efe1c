// All objects of a kind, for ever: listed page by page, then watched from there. Breaks resume where they happened; only a version that is too old lists again.

import { Backoff } from '../base/backoff.ts'
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { type KubeApi, KubeError, untilRetryAfter } from './api.ts'
import { type KubeListing, listAll } from './list.ts'
import { type KubeBody, listOf, statusOf, versionOf } from './protobuf.ts'

/** What `project` keeps of each object. */
export type KubeEvent<T> =
  | { readonly kind: 'list'; readonly items: readonly T[] }
  | { readonly kind: 'put'; readonly item: T }
  | { readonly kind: 'gone'; readonly item: T }

export type KubeCollection<T> = Omit<KubeListing, 'page'> & {
  /** Called on each object at once, so that a page is never held longer than it is read. It reads protobuf where that is asked for. */
  readonly project: (object: KubeBody) => T
}

export type Pace = {
  /** Objects in a page. */
  readonly page: number
  /** Seconds after which the API server ends a watch: the least, and up to how much more. */
  readonly lifeSeconds: number
  readonly lifeJitterSeconds: number
  /** Milliseconds without a line after which a watch is given up, once bookmarks have been seen: the API server sends one a minute. */
  readonly silenceMs: number
  /** Milliseconds that a watch may live past the end that it asked for. */
  readonly overtimeMs: number
}

/**
 * Pages of 100: measured with 5,000 nodes of 20 KB they cost less memory than larger ones and no time worth naming. Five to ten minutes are what
 * client-go asks for as well.
 */
export const PACE: Pace = {
  page: 100,
  lifeSeconds: 300,
  lifeJitterSeconds: 300,
  silenceMs: 150_000,
  overtimeMs: 30_000
}

/** Milliseconds after which a watch that breaks has been a good one: the first pause is short again. */
const STEADY = 5_000

/** Ends only with the signal. Trouble is told through the conditions of `api` and the log. */
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
    // A list that fails after minutes was no good watch: an API server that is hard pressed must not see us sooner for it.
    let begun = Number.POSITIVE_INFINITY
    try {
      if (watch.version === undefined) yield { kind: 'list', items: await watch.list(signal) }
      begun = performance.now()
      yield* watch.events(signal)
      if (performance.now() - begun > STEADY) backoff.reset()
      // Also after a regular end: a proxy that ends every watch at once must not make us hurry.
      else await backoff.pause(signal)
    } catch (error) {
      if (signal.aborted) return
      const reason = reasonOf(error)
      if (isOutdated(error)) {
        watch.version = undefined
        log.info({ path: collection.path, reason }, 'the API server can not go on where the watch was; listing again')
      } else if (!(error instanceof KubeError)) {
        log.warn({ path: collection.path, reason }, 'the watch on the Kubernetes API broke; going on where it was')
      }
      if (performance.now() - begun > STEADY) backoff.reset()
      await untilRetryAfter(error, signal)
        .then(() => backoff.pause(signal))
        .catch(() => undefined)
    }
  }
}

/** The API server no longer has the version from which a list or a watch was to go on, or does not have it yet. */
class Outdated extends Error {}

const isOutdated = (error: unknown): boolean =>
  error instanceof Outdated ||
  (error instanceof KubeError &&
    (error.status === 400 || JSON.stringify(error.said ?? null).includes('ResourceVersionTooLarge')))

class Watch<T> {
  /** From where to watch; `undefined`: a list has to come first. */
  version: string | undefined
  readonly #api: KubeApi
  readonly #collection: KubeCollection<T>
  readonly #pace: Pace
  /** Whether this API server sends bookmarks. */
  #bookmarks = false
  /** The next watch begins where an earlier one ended, and not where a list did. */
  #resumes = false

  constructor(api: KubeApi, collection: KubeCollection<T>, pace: Pace) {
    this.#api = api
    this.#collection = collection
    this.#pace = pace
  }

  /** All objects as of one moment, and that moment as the version to watch from. Errors: Outdated when paging took too long, KubeError. */
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

  /** Changes since `version`, until the API server ends the watch. Errors: Outdated, KubeError, and whatever breaks a connection. */
  async *events(signal: AbortSignal): AsyncGenerator<KubeEvent<T>, void> {
    if (this.#resumes) await this.#checkVersion(signal)
    this.#resumes = true
    const { path, query, protobuf } = this.#collection
    const seconds = Math.round(this.#pace.lifeSeconds + Math.random() * this.#pace.lifeJitterSeconds)
    const asked = { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds: String(seconds) }
    const alive = new DeadMan(1000 * seconds, this.#pace.overtimeMs)
    const either = AbortSignal.any([signal, alive.signal])
    if (this.#bookmarks) alive.heard(this.#pace.silenceMs)
    try {
      const wanted = { ...query, ...asked, resourceVersion: this.version ?? '' }
      for await (const { type, object } of this.#api.events({ verb: 'GET', path, query: wanted, protobuf }, either)) {
        const event = this.#event(type, object)
        if (this.#bookmarks) alive.heard(this.#pace.silenceMs)
        if (event !== undefined) yield event
        // After the yield: what was not taken is sent again.
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
        // ERROR, nearly always 410. Whatever it is, a new list does no harm.
        const { code, message, reason } = statusOf(object)
        throw new Outdated(`${code ?? type} ${String(message || reason || '')}`.trim())
      }
    }
  }

  /**
   * An etcd that was restored counts from an earlier version again, and the API server sends nothing until it has passed the one that a watch asks for:
   * hours of silence without an error. Versions may be compared as numbers (Kubernetes 1.35, KEP 5504; true of all before).
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

/** Ends a watch that is silent for too long, or that outlives the end it asked for: behind a dead proxy nothing else would. */
class DeadMan {
  readonly #ended = new AbortController()
  readonly #whole: NodeJS.Timeout
  #silence: NodeJS.Timeout | undefined

  constructor(lifeMs: number, overtimeMs: number) {
    const reason = `its end is ${overtimeMs / 1000} s overdue`
    this.#whole = setTimeout(() => this.#end(reason), lifeMs + overtimeMs)
  }

  get signal(): AbortSignal {
    return this.#ended.signal
  }

  heard(silenceMs: number): void {
    if (this.#silence === undefined)
      this.#silence = setTimeout(
        () => this.#end(`nothing came for ${silenceMs / 1000} s, not even a bookmark`),
        silenceMs
      )
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
