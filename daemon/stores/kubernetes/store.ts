// Lease store on the Kubernetes API, as flannel's: a node's podCIDRs are its subnets, its annotations say how it is
// reached.
import { basename, dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { FileReader } from '../../../ipam/read-file.ts'
import { AsyncQueue } from '../../base/async-queue.ts'
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf } from '../../base/error.ts'
import type { Json, JsonObject } from '../../config/json.ts'
import { configurationToWrite } from '../../config/last.ts'
import { LONGEST_CONFIGURATION } from '../../config/net-conf.ts'
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
    /** Another program enforces NetworkPolicies: no warnings are needed. */
    readonly networkPolicyEnforced: boolean
  }

/**
 * Milliseconds between two reads of a missing configuration, and of one that may have changed: the kubelet updates a
 * mounted ConfigMap within about a minute.
 */
const CONFIG_RETRY = 1_000
const CONFIG_POLL = 5_000
/** The podCIDR is the subnet, whatever the configuration says about lengths and ranges. */
const IGNORED = /^(ipv6)?subnet(len|min|max)$/i

export class KubernetesStore implements Store {
  readonly type = 'kubernetes'
  readonly #api: KubeApi
  readonly #keeper: NodeKeeper
  readonly #events: ConditionEvents
  readonly #files = new FileReader()
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
    // Trouble with policies is no condition: where weftd may not read them, a log line is enough.
    let logged = ''
    const raise = (_: string, detail: string) => {
      if (detail !== logged) deps.log.warn({ detail }, 'NetworkPolicies cannot be read')
      logged = detail
    }
    this.#policies = { api: new KubeApi(access, { raise, clear: () => undefined }), writer, log: deps.log }
    this.#leases = new NodeLeases(this.#prefix)
    this.#events = new ConditionEvents(writer, () => this.#keeper.node)
  }

  /**
   * Opens no connection yet. `pace` differs in tests only. Errors: OPTION_INVALID when no API server is configured or a
   * credential can't be read.
   */
  static async open(options: KubernetesOptions, deps: StoreDeps, pace = PACE): Promise<KubernetesStore> {
    const access = await KubeAccess.open(await targetOf(options), () => performance.now(), options)
    return new KubernetesStore(access, options, deps, pace)
  }

  get configurationPlace(): string {
    return `the file ${this.#options.netConfigPath}`
  }

  /** Retries on every error: a ConfigMap is mounted by symbolic links that are replaced. */
  async configuration(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const path = this.#options.netConfigPath
    const onError = (error: unknown) =>
      this.#deps.report.raise(
        'CONFIG_MISSING',
        `--net-config-path ${path} cannot be read: ${reasonOf(error)}`,
        `mount the ConfigMap at ${dirname(path)}, with a key ${basename(path)} as in ${configurationToWrite(this.#deps.lastConfiguration)}`
      )
    const text = await retry(() => this.#configured(), { signal, backoff: Backoff.constant(CONFIG_RETRY), onError })
    this.#deps.report.clear('CONFIG_MISSING')
    return text
  }

  async #configured(): Promise<string> {
    return withoutSubnetKeys(await this.#files.text(this.#options.netConfigPath, LONGEST_CONFIGURATION))
  }

  async *#configurations(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    let last: { readonly text: string | undefined } | undefined
    while (!signal.aborted) {
      let text: string | undefined
      try {
        text = await this.#configured()
      } catch {
        // Reported as absent; the reader decides what that means for a running node.
      }
      if (last === undefined || last.text !== text) yield { kind: 'configuration', text }
      last = { text }
      await sleep(CONFIG_POLL, undefined, { signal }).catch(() => undefined)
    }
  }

  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#keeper.acquire(request, signal)
  }

  async candidates(node: string, signal: AbortSignal): Promise<readonly Lease[]> {
    const lease = await this.#keeper.published(node, signal)
    return lease === undefined ? [] : [lease]
  }

  announce(): void {
    this.#keeper.announce()
  }

  onCondition(condition: Condition, active: boolean): void {
    this.#events.onCondition(condition, active)
  }

  reconnect(): void {
    this.#api.reconnect()
    this.#policies.api.reconnect()
  }

  watch(signal: AbortSignal): AsyncGenerator<StoreEvent, void> {
    const sources = [this.#nodes(signal), this.#configurations(signal), this.#warnings(signal)]
    return AsyncQueue.of<StoreEvent>(...sources)[Symbol.asyncIterator]()
  }

  /** Yields nothing. */
  async *#warnings(signal: AbortSignal): AsyncGenerator<never, void> {
    const isLeader = () => this.#keeper.name !== undefined && this.#leases.first === this.#keeper.name
    if (!this.#options.networkPolicyEnforced) await warnOfPolicies({ ...this.#policies, isLeader }, signal)
  }

  async *#nodes(signal: AbortSignal): AsyncGenerator<LeaseEvent, void> {
    const leases = this.#leases
    const project = (object: KubeBody) => nodeOf(object, this.#prefix)
    const nodes = { path: '/api/v1/nodes', protobuf: true, project }
    for await (const event of follow<KubeNode>(this.#api, nodes, this.#deps.log, signal, this.#pace)) {
      const { name } = this.#keeper
      switch (event.kind) {
        case 'list':
          if (name !== undefined) this.#keeper.onNode(event.items.find((node) => node.name === name))
          yield* leases.listed(event.items)
          break
        case 'put':
          if (event.item.name === name) this.#keeper.onNode(event.item)
          yield* leases.put(event.item)
          break
        case 'gone':
          if (event.item.name === name) this.#keeper.onNode(undefined)
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

/** Anything that is not a JSON object is returned unchanged: the parser reports it. */
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
