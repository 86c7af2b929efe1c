// Whether weftd ends because it is replaced or because it is not wanted any more: its DaemonSet says so, and a pod's signal does not.
import { setTimeout as sleep } from 'node:timers/promises'
import type { JsonObject } from './config/json.ts'
import { reasonOf } from './error.ts'
import type { AccessOptions } from './lease/kube-access.ts'
import type { Log } from './log.ts'

/** What the API says of the DaemonSet: that it is being deleted, or gone; or that we may not ask (any more). */
export type Standing = 'stands' | 'deleted' | 'denied'

export type StandingPace = {
  /** Milliseconds between two questions until the DaemonSet was seen to stand, and from then on. */
  readonly againMs: number
  readonly lookMs: number
}

/** One small request in five minutes for each node. */
export const STANDING_PACE: StandingPace = { againMs: 10_000, lookMs: 300_000 }
/** Milliseconds for the question at the end. */
const LAST_QUESTION = 5_000

export class OwnDaemonSet {
  readonly #name: string
  readonly #ask: (signal: AbortSignal) => Promise<Standing>
  readonly #log: Log
  readonly #pace: StandingPace
  #hasStood = false
  /** The latest answer, and when it came, in milliseconds of the monotonic clock. */
  #last: { readonly standing: Standing; readonly at: number } | undefined

  /** `ask` rejects when there is no answer. `name`: NAMESPACE/NAME. */
  constructor(name: string, ask: (signal: AbortSignal) => Promise<Standing>, log: Log, pace = STANDING_PACE) {
    this.#name = name
    this.#ask = ask
    this.#log = log
    this.#pace = pace
  }

  /** Asks until the signal, and rejects with it: a refusal at the end means nothing to whoever was refused before. */
  async follow(signal: AbortSignal): Promise<never> {
    for (;;) {
      const standing = await this.#ask(signal).catch(() => undefined)
      if (standing !== undefined) this.#heard(standing)
      const pause = this.#hasStood ? this.#pace.lookMs : this.#pace.againMs
      // Never the same on two nodes.
      await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal, ref: false })
    }
  }

  #heard(standing: Standing): void {
    if (standing === 'stands') this.#hasStood = true
    else if (this.#last?.standing !== standing) {
      const why = standing === 'denied' ? 'we may not read it (verb get)' : 'there is none of this name'
      this.#log.warn(
        { daemonset: this.#name },
        `the DaemonSet ${this.#name} is not known: ${why}; until it is, its deletion may leave this node as it is`
      )
    }
    this.#last = { standing, at: performance.now() }
  }

  /**
   * Asked when we were told to end. `kubectl delete -f deploy/` takes account and role away in the same breath, so a refusal by an API that has just
   * allowed it is a deletion, too; one that has lasted (a role that somebody took away, keys of the API that were changed) is none. No answer (the
   * machine goes down, the API is away) is none either: then everything stays as it is.
   */
  async isDeleted(): Promise<boolean> {
    if (!this.#hasStood) return false
    const wasAllowed = this.#last?.standing === 'stands' && performance.now() - this.#last.at < 2 * this.#pace.lookMs
    try {
      const standing = await this.#ask(AbortSignal.timeout(LAST_QUESTION))
      const isDeleted = standing === 'deleted' || (standing === 'denied' && wasAllowed)
      this.#log.info({ daemonset: this.#name, standing }, isDeleted ? GONE : standing === 'stands' ? STANDS : REFUSED)
      return isDeleted
    } catch (error) {
      this.#log.warn(
        { daemonset: this.#name, reason: reasonOf(error) },
        'nobody says whether the DaemonSet stands; everything stays as it is'
      )
      return false
    }
  }
}

const STANDS = 'the DaemonSet stands: this weftd is replaced'
const GONE = 'the DaemonSet is gone: leaving this node'
const REFUSED = 'we have not been allowed to read the DaemonSet for a while; everything stays as it is'

/** The question to the API, over connections of its own: what it meets is no condition of the lease store. Errors: OPTION_INVALID, as the store's. */
export async function askingApi(
  name: string,
  options: AccessOptions
): Promise<(signal: AbortSignal) => Promise<Standing>> {
  const { KubeAccess, targetOf } = await import('./lease/kube-access.ts')
  const { KubeApi, KubeError } = await import('./lease/kube-api.ts')
  const api = new KubeApi(new KubeAccess(await targetOf(options), () => performance.now()), { raise() {}, clear() {} })
  const [namespace = '', daemonset = ''] = name.split('/')
  const path = `/apis/apps/v1/namespaces/${encodeURIComponent(namespace)}/daemonsets/${encodeURIComponent(daemonset)}`
  return async (signal) => {
    try {
      const { status, body } = await api.call({ verb: 'GET', path }, signal)
      if (status !== 200) {
        if (saysGone(body, daemonset)) return 'deleted'
        throw new Error(`GET ${path} was answered with ${status}: ${String(body.message)}`)
      }
      const { deletionTimestamp } = body.metadata as { readonly deletionTimestamp?: unknown }
      return deletionTimestamp === undefined ? 'stands' : 'deleted'
    } catch (error) {
      if (error instanceof KubeError && (error.status === 401 || error.status === 403)) return 'denied'
      throw error
    }
  }
}

/** An API server that does not serve the group yet, or a proxy before it, answers 404 as well: only a Status that names what is missing says that it is gone. */
function saysGone({ reason, details }: JsonObject, name: string): boolean {
  const isAbout = typeof details === 'object' && details !== null && 'name' in details && details.name === name
  return reason === 'NotFound' && isAbout
}
