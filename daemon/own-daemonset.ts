// Whether weftd ends because it is replaced or because it is not wanted any more: its DaemonSet says so, and a pod's signal does not.
import { setTimeout as sleep } from 'node:timers/promises'
import type { JsonObject } from './config/json.ts'
import { reasonOf } from './error.ts'
import type { AccessOptions } from './lease/kube-access.ts'
import type { Log } from './log.ts'

/** What the API says of the DaemonSet: that it is being deleted, or gone; or that we may not ask (any more). */
export type Standing = 'stands' | 'deleted' | 'denied'

/** Milliseconds between two questions until one was answered, and for the one at the end. */
const AGAIN = 10_000
const LAST_QUESTION = 5_000

export class OwnDaemonSet {
  readonly #name: string
  readonly #ask: (signal: AbortSignal) => Promise<Standing>
  readonly #log: Log
  #stood = false

  /** `ask` rejects when there is no answer. `name`: NAMESPACE/NAME. */
  constructor(name: string, ask: (signal: AbortSignal) => Promise<Standing>, log: Log) {
    this.#name = name
    this.#ask = ask
    this.#log = log
  }

  /** Asks until the DaemonSet was seen to stand: without that, a refusal at the end would mean nothing. */
  async follow(signal: AbortSignal): Promise<void> {
    let told = false
    while (!this.#stood) {
      const standing = await this.#ask(signal).catch(() => undefined)
      this.#stood = standing === 'stands'
      if (this.#stood) return
      if (standing !== undefined && !told) {
        told = true
        const why = standing === 'denied' ? 'we may not read it (verb get)' : 'there is none of this name'
        this.#log.warn(
          { daemonset: this.#name },
          `the DaemonSet ${this.#name} is not known: ${why}; its deletion will leave this node as it is`
        )
      }
      await sleep(AGAIN, undefined, { signal, ref: false })
    }
  }

  /**
   * Asked when we were told to end. `kubectl delete -f deploy/` takes account and role away in the same breath, so a refusal by an API that once
   * answered is a deletion, too. No answer (the machine goes down, the API is away) is none: then everything stays as it is.
   */
  async isDeleted(): Promise<boolean> {
    if (!this.#stood) return false
    try {
      const standing = await this.#ask(AbortSignal.timeout(LAST_QUESTION))
      this.#log.info(
        { daemonset: this.#name, standing },
        standing === 'stands'
          ? 'the DaemonSet stands: this weftd is replaced'
          : 'the DaemonSet is gone: leaving this node'
      )
      return standing !== 'stands'
    } catch (error) {
      this.#log.warn(
        { daemonset: this.#name, reason: reasonOf(error) },
        'nobody says whether the DaemonSet stands; everything stays as it is'
      )
      return false
    }
  }
}

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
