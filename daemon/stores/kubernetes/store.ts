// Leases from the Kubernetes API, as flannel keeps them: a node's podCIDRs are its subnets, its annotations say how it is reached.
import { readFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AsyncQueue } from '../../base/async-queue.ts'
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf } from '../../base/error.ts'
import type { Json, JsonObject } from '../../config/json.ts'
import { EXAMPLE } from '../../config/net-conf.ts'
import type { Condition } from '../../health/conditions.ts'
import { KubeApi } from '../../kube/api.ts'
import { type AccessOptions, KubeAccess, targetOf } from '../../kube/credentials.ts'
import { ConditionEvents, EventWriter } from '../../kube/events.ts'
import { type PolicyDeps, warnOfPolicies } from '../../kube/policy-warnings.ts'
import type { KubeBody } from '../../kube/protobuf.ts'
import { follow, PACE, type Pace } from '../../kube/watch.ts'
import type { Lease } from '../../lease/lease.ts'
import type { LeaseEvent, LeaseRequest, Store, StoreDeps, StoreEvent } from '../../lease/store.ts'
import { type NodeIdentity, NodeKeeper } from './keeper.ts'
import { NodeLeases } from './leases.ts'
import { nodeOf } from './node.ts'
import { annotationPrefix, type KubeNode } from './record.ts'

export type KubernetesOptions = AccessOptions &
  NodeIdentity & {
    readonly annotationPrefix: string
    readonly netConfigPath: string
    readonly setNodeNetworkUnavailable: boolean
    /** Another program enforces NetworkPolicies: nobody has to be warned. */
    readonly networkPolicyEnforced: boolean
  }

/** Milliseconds between two looks for a configuration that is missing, and at one that may have changed: the kubelet writes it anew within a minute or so. */
const CONFIG_AGAIN = 1_000
const CONFIG_LOOK = 5_000
/** The podCIDR is the subnet, whatever the configuration says about lengths and ranges. */
const IGNORED = /^(ipv6)?subnet(len|min|max)$/i

export class KubernetesStore implements Store {
  readonly type = 'kubernetes'
  readonly #api: KubeApi
  readonly #keeper: NodeKeeper
  readonly #events: ConditionEvents
  readonly #deps: StoreDeps
  readonly #options: KubernetesOptions
  readonly #prefix: string
  readonly #pace: Pace
  readonly #policies: Pick<PolicyDeps, 'api' | 'writer' | 'log'>
  readonly #leases: NodeLeases

  private constructor(access: KubeAccess, options: KubernetesOptions, deps: StoreDeps, pace: Pace) {
    this.#options = options
    this.#deps = deps
    this.#pace = pace
    this.#prefix = annotationPrefix(options.annotationPrefix)
    this.#api = new KubeApi(access, deps.report)
    const { nodeName, podName, podNamespace, setNodeNetworkUnavailable: setNetworkUnavailable } = options
    const identity = { nodeName, podName, podNamespace }
    this.#keeper = new NodeKeeper(this.#api, { ...identity, prefix: this.#prefix, setNetworkUnavailable }, deps)
    const writer = new EventWriter(this.#api, deps.log, () => this.#keeper.name ?? '')
    // Policies are worth a warning and no condition: where weftd may not read them, a line in the log is enough.
    let told = ''
    const raise = (_: string, detail: string) => {
      if (detail !== told) deps.log.warn({ detail }, 'NetworkPolicies can not be read')
      told = detail
    }
    this.#policies = { api: new KubeApi(access, { raise, clear: () => undefined }), writer, log: deps.log }
    this.#leases = new NodeLeases(this.#prefix)
    this.#events = new ConditionEvents(writer, () => this.#keeper.node)
  }

  /** Opens no connection yet. `pace` is for tests that are in a hurry. Errors: OPTION_INVALID when no API server is named or a credential can't be read. */
  static async open(options: KubernetesOptions, deps: StoreDeps, pace = PACE): Promise<KubernetesStore> {
    const access = new KubeAccess(await targetOf(options), () => performance.now())
    return new KubernetesStore(access, options, deps, pace)
  }

  get configurationPlace(): string {
    return `the file ${this.#options.netConfigPath}`
  }

  /** Whatever makes a file unreadable may end: a ConfigMap is mounted by links that are replaced. */
  async configuration(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const path = this.#options.netConfigPath
    const onError = (error: unknown) =>
      this.#deps.report.raise(
        'CONFIG_MISSING',
        `--net-config-path ${path} can not be read: ${reasonOf(error)}`,
        `mount the ConfigMap at ${dirname(path)}, with a key ${basename(path)} as in ${EXAMPLE}`
      )
    const text = await retry(() => this.#configured(), { signal, backoff: Backoff.constant(CONFIG_AGAIN), onError })
    this.#deps.report.clear('CONFIG_MISSING')
    return text
  }

  #configured(): string {
    return withoutSubnetKeys(readFileSync(this.#options.netConfigPath, 'utf8'))
  }

  async *#configurations(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    let told: { readonly text: string | undefined } | undefined
    while (!signal.aborted) {
      let text: string | undefined
      try {
        text = this.#configured()
      } catch {
        // Told as absent: whoever listens knows what that means for a running node.
      }
      if (told === undefined || told.text !== text) yield { kind: 'configuration', text }
      told = { text }
      await sleep(CONFIG_LOOK, undefined, { signal }).catch(() => undefined)
    }
  }

  acquire(wish: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#keeper.acquire(wish, signal)
  }

  announce(): void {
    this.#keeper.announce()
  }

  tell(condition: Condition, active: boolean): void {
    this.#events.tell(condition, active)
  }

  reconnect(): void {
    this.#api.reconnect()
    this.#policies.api.reconnect()
  }

  watch(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    const sources = [this.#nodes(signal), this.#configurations(signal), this.#warnings(signal)]
    return AsyncQueue.of<StoreEvent>(...sources)[Symbol.asyncIterator]()
  }

  /** Yields nothing, ever. */
  async *#warnings(signal: AbortSignal): AsyncGenerator<never, void> {
    const isSpeaker = () => this.#keeper.name !== undefined && this.#leases.first === this.#keeper.name
    if (!this.#options.networkPolicyEnforced) await warnOfPolicies({ ...this.#policies, isSpeaker }, signal)
  }

  async *#nodes(signal: AbortSignal): AsyncGenerator<LeaseEvent, void> {
    const leases = this.#leases
    const project = (object: KubeBody) => nodeOf(object, this.#prefix)
    const nodes = { path: '/api/v1/nodes', protobuf: true, project }
    for await (const event of follow<KubeNode>(this.#api, nodes, this.#deps.log, signal, this.#pace)) {
      const { name } = this.#keeper
      switch (event.kind) {
        case 'list':
          if (name !== undefined) this.#keeper.happened(event.items.find((node) => node.name === name))
          yield* leases.listed(event.items)
          break
        case 'put':
          if (event.item.name === name) this.#keeper.happened(event.item)
          yield* leases.put(event.item)
          break
        case 'gone':
          if (event.item.name === name) this.#keeper.happened(undefined)
          yield* leases.gone(event.item.name)
          break
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#events[Symbol.asyncDispose]()
    await this.#keeper[Symbol.asyncDispose]()
    await this.#policies.api[Symbol.asyncDispose]()
    await this.#api[Symbol.asyncDispose]()
  }
}

/** What is no JSON object stays as it is: whoever parses it says so. */
function withoutSubnetKeys(text: string): string {
  try {
    const value = JSON.parse(text) as Json
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return text
    return JSON.stringify(
      Object.fromEntries(Object.entries(value as JsonObject).filter(([name]) => !IGNORED.test(name)))
    )
  } catch {
    return text
  }
}
