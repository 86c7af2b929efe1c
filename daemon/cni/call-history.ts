// Outcomes of the latest CNI calls by pod: `weftctl why pod` can explain a failure after the runtime has sent its DEL.
import { LONGEST_NAME } from '../../plugins/cni/args.ts'
import type { CniError } from '../../plugins/cni/error.ts'
import type { Call } from '../../plugins/cni/types.ts'
import type { CniRequest } from '../../plugins/protocol.ts'

export type Outcome = {
  readonly verb: 'ADD' | 'CHECK' | 'DEL'
  readonly plugin: string
  /** Empty when the configuration could not be read. */
  readonly network: string
  readonly containerId: string
  readonly ifname: string
  /** When it ended, milliseconds since 1970. */
  readonly at: number
  readonly seconds: number
  /** The CNI error that the runtime got: code, `msg` and `details`. */
  readonly failure?: { readonly code: number; readonly sentence: string; readonly details: string }
  /** An ADD that failed after an earlier one had succeeded without a DEL in between. */
  readonly isFurther?: true
}

/** A pod as `namespace/name`; a name alone where the runtime knows no namespaces; else the container's id. */
export type PodKey = string

/** The latest pods are kept: some 200 bytes for each call of a pod that is set up by two plugins. */
const MOST_PODS = 512

export class CallHistory {
  readonly #now: () => number
  /**
   * In order of the last call. Per pod the last outcome of each verb of each plugin, so that neither the DEL after a
   * failed ADD nor `lo` replaces it.
   */
  readonly #ofPod = new Map<PodKey, Map<string, Outcome>>()

  /** `now` in milliseconds since 1970. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** `call` is what could be read of the request. Calls without a container are not recorded. */
  record(request: CniRequest, call: Call | undefined, seconds: number, failure: CniError | undefined): void {
    const { CNI_COMMAND: verb, CNI_CONTAINERID: containerId = '', CNI_IFNAME: ifname = '', CNI_ARGS } = request.env
    if ((verb !== 'ADD' && verb !== 'CHECK' && verb !== 'DEL') || containerId === '') return
    const { plugin } = request
    const network = call !== undefined && 'network' in call ? call.network : ''
    const pod = podKeyOf(CNI_ARGS ?? '') ?? containerId
    const before = this.#ofPod.get(pod) ?? new Map<string, Outcome>()
    const slot = `${verb} ${plugin} ${ifname}`
    const isFurther = verb === 'ADD' && isMade(before.get(slot), before.get(`DEL ${plugin} ${ifname}`), containerId)
    const outcome: Outcome = {
      ...{ verb, plugin, network, containerId, ifname, at: this.#now(), seconds },
      ...(failure && { failure: { code: failure.code, sentence: failure.message, details: failure.details } }),
      ...(failure && isFurther && { isFurther })
    }
    before.delete(slot)
    this.#ofPod.delete(pod)
    this.#ofPod.set(pod, before.set(slot, outcome))
    const oldest = this.#ofPod.keys().next().value
    if (this.#ofPod.size > MOST_PODS && oldest !== undefined) this.#ofPod.delete(oldest)
  }

  /** The latest first. */
  of(pod: PodKey): readonly Outcome[] {
    return [...(this.#ofPod.get(pod)?.values() ?? [])].reverse()
  }

  /** Of this container, whatever its pod; the beginning of its id is enough. The latest first. */
  ofContainer(beginning: string): readonly Outcome[] {
    const all = [...this.#ofPod.values()].flatMap((calls) => [...calls.values()])
    return all.filter(({ containerId }) => containerId.startsWith(beginning)).sort((a, b) => b.at - a.at)
  }

  pods(): readonly PodKey[] {
    return [...this.#ofPod.keys()]
  }
}

/** Whether what this container's last ADD made, or found, still exists: no DEL has followed. */
function isMade(add: Outcome | undefined, del: Outcome | undefined, containerId: string): boolean {
  if (add?.containerId !== containerId || (add.failure !== undefined && add.isFurther !== true)) return false
  return del?.containerId !== containerId || del.at < add.at
}

/**
 * `undefined` when CNI_ARGS name no pod. Malformed ones are read as far as possible: the malformed call itself is to be
 * found by its pod.
 */
function podKeyOf(args: string): PodKey | undefined {
  const [namespace, name] = [/(?:^|;)K8S_POD_NAMESPACE=([^;=]*)/, /(?:^|;)K8S_POD_NAME=([^;=]*)/].map((pattern) =>
    (pattern.exec(args)?.[1] ?? '').slice(0, LONGEST_NAME)
  )
  if (name === '') return undefined
  return namespace === '' ? name : `${namespace}/${name}`
}
