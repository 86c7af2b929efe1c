// Holds our lease on our own Node object: its podCIDRs are our subnets, and our annotations are written again whenever
// another program changes them.
import type { PerFamily, Prefix } from '../../../ipam/address.ts'
import { Backoff, retry } from '../../base/backoff.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import { Wakeup } from '../../base/wakeup.ts'
import type { JsonObject } from '../../config/json.ts'
import type { ConditionCode } from '../../health/conditions.ts'
import type { KubeApi } from '../../kube/api.ts'
import type { Regarding } from '../../kube/events.ts'
import type { Lease } from '../../lease/lease.ts'
import type { LeaseRequest, StoreDeps } from '../../lease/store.ts'
import { projectNode } from './node.ts'
import { missingCure, outsideCure, PodCidrDiagnosis } from './podcidr-diagnosis.ts'
import {
  annotationDifferences,
  annotationPatch,
  hasSubnets,
  type KubeNode,
  leaseOfNode,
  networkAvailable,
  placementOf,
  publicAddresses
} from './record.ts'

export type NodeIdentity = {
  /** `--node-name` or NODE_NAME. */
  readonly nodeName?: string | undefined
  /** POD_NAME and POD_NAMESPACE: our own pod, whose spec.nodeName is our node. */
  readonly podName?: string | undefined
  readonly podNamespace?: string | undefined
}

/** From the flag and the variables that the DaemonSet sets from its pod's own fields. */
export function identityOf(
  nodeName: string | undefined,
  { NODE_NAME, POD_NAME, POD_NAMESPACE }: Readonly<Record<string, string | undefined>>
): NodeIdentity {
  return { nodeName: nodeName ?? NODE_NAME, podName: POD_NAME, podNamespace: POD_NAMESPACE }
}

export type NodeKeeperOptions = NodeIdentity & {
  /** As `annotationPrefix` returns it. */
  readonly prefix: string
  /** Set NetworkUnavailable to False once the network works. */
  readonly setNetworkUnavailable: boolean
}

type Held = { readonly request: LeaseRequest; readonly lease: Lease; readonly name: string }

/** When another program has not changed our annotations for this many milliseconds, the backoff is reset. */
const CALM = 60_000
/**
 * The API server could not apply the patch between other writes to the node: on a busy node that is normal, and worth
 * another attempt.
 */
const CONFLICT = 409
/** Conditions about a missing subnet; at most one is active. */
const NO_SUBNET: readonly ConditionCode[] = [
  'NODE_UNKNOWN',
  'POD_CIDR_MISSING',
  'POD_CIDR_OUTSIDE',
  'POD_CIDRS_EXHAUSTED'
]

export class NodeKeeper implements AsyncDisposable {
  readonly #api: KubeApi
  readonly #options: NodeKeeperOptions
  readonly #deps: StoreDeps
  readonly #diagnosis: PodCidrDiagnosis
  readonly #ended = new AbortController()
  #name: string | undefined
  #uid: string | undefined
  #held: Held | undefined
  #announced = false
  readonly #changed = new Wakeup()
  #repairing: Promise<void> | undefined
  #repairAgain = false
  readonly #repairBackoff = new Backoff()
  #repairedAt = Number.NEGATIVE_INFINITY

  constructor(api: KubeApi, options: NodeKeeperOptions, deps: StoreDeps) {
    this.#api = api
    this.#options = options
    this.#deps = deps
    this.#diagnosis = new PodCidrDiagnosis(api, options.prefix)
  }

  /** Our node's name, once `acquire` has found it. */
  get name(): string | undefined {
    return this.#name
  }

  /**
   * Our node as the subject of events. Before its uid is known the name is used instead, as in the kubelet's own
   * events.
   */
  get node(): Regarding | undefined {
    const name = this.#name
    return name === undefined ? undefined : { apiVersion: 'v1', kind: 'Node', name, uid: this.#uid ?? name }
  }

  /**
   * See Store.acquire. Waits until the node exists and has podCIDRs in Network, with a condition that says what is
   * missing. Errors: LEASE_MALFORMED for podCIDRs that are not CIDRs.
   */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const either = AbortSignal.any([signal, this.#ended.signal])
    this.#name ??= await this.#ownName(request.node, either)
    const backoff = new Backoff()
    for (;;) {
      // Ends what still waits when the round is over: the waiter for a change, or the pause.
      const round = new AbortController()
      try {
        const changed = this.#changed.next(round.signal)
        const node = await this.#get(this.#name, either)
        const subnet = await this.#subnetOf(node, request, either)
        if (node !== undefined && subnet !== undefined) {
          const lease = await this.#publish(node, request, subnet, either)
          if (lease !== undefined) return lease
        }
        // The watch reports changes of the node; polling covers the time without a watch.
        await Promise.race([changed, backoff.pause(AbortSignal.any([either, round.signal]))])
      } finally {
        round.abort()
      }
    }
  }

  /** What our node publishes, flanneld's included; `host` is the host name. */
  async published(host: string, signal: AbortSignal): Promise<Lease | undefined> {
    const either = AbortSignal.any([signal, this.#ended.signal])
    this.#name ??= await this.#ownName(host, either)
    const node = await this.#get(this.#name, either)
    return node && this.#previousLease(node)
  }

  /** In flannel's order, then the kubelet's default: the host name in lower case. */
  async #ownName(host: string, signal: AbortSignal): Promise<string> {
    const { nodeName, podName, podNamespace } = this.#options
    if (nodeName) return nodeName
    if (!podName || !podNamespace) return host.toLowerCase()
    const path = `/api/v1/namespaces/${encodeURIComponent(podNamespace)}/pods/${encodeURIComponent(podName)}`
    const { status, body } = await this.#api.persist({ verb: 'GET', path }, signal)
    const name = (body.spec as JsonObject | undefined)?.nodeName
    if (status === 200 && typeof name === 'string' && name !== '') return name
    throw new WeftError(
      'NODE_UNKNOWN',
      `pod ${podNamespace}/${podName} (POD_NAMESPACE, POD_NAME) ${status === 200 ? 'is on no node' : 'does not exist'}`,
      'set NODE_NAME from spec.nodeName in the manifest'
    )
  }

  /** `undefined` when there is no such node. */
  async #get(name: string, signal: AbortSignal): Promise<KubeNode | undefined> {
    const { status, body } = await this.#api.persist({ verb: 'GET', path: pathOf(name) }, signal)
    if (status !== 200) return undefined
    const node = projectNode(body, this.#options.prefix)
    this.#uid = node.uid
    return node
  }

  /** The node's subnets, or `undefined` with a condition that says why there are none. */
  async #subnetOf(
    node: KubeNode | undefined,
    request: LeaseRequest,
    signal: AbortSignal
  ): Promise<PerFamily<Prefix> | undefined> {
    if (node === undefined) {
      this.#why('NODE_UNKNOWN', `${this.#api.place} has no node ${this.#name}`)
      return undefined
    }
    const placement = placementOf(node, request.network)
    if (placement.kind === 'fits') {
      this.#why(undefined, '')
      return placement.subnet
    }
    if (placement.kind === 'outside') this.#why('POD_CIDR_OUTSIDE', placement.detail, outsideCure(node.name))
    else {
      const { used, others } = await this.#diagnosis.look(node, request.network, signal)
      if (used === undefined)
        this.#why('POD_CIDR_MISSING', `${placement.detail}; ${others}`, missingCure(request.network))
      else this.#why('POD_CIDRS_EXHAUSTED', `${placement.detail}: ${used}`)
    }
    return undefined
  }

  #why(code: ConditionCode | undefined, detail: string, cure?: string): void {
    for (const other of NO_SUBNET) if (other !== code) this.#deps.report.clear(other)
    if (code !== undefined) this.#deps.report.raise(code, detail, cure)
  }

  /** Writes the annotations that differ; `undefined` when the node was deleted meanwhile. */
  async #publish(
    node: KubeNode,
    request: LeaseRequest,
    subnet: PerFamily<Prefix>,
    signal: AbortSignal
  ): Promise<Lease | undefined> {
    const { backendType } = request
    const backendData = request.backendData(this.#previousLease(node))
    const lease = { subnet, publicIp: this.#publicIp(node, request), backendType, backendData, node: node.name }
    if (!(await this.#patch(node, annotationPatch(node, lease, this.#options.prefix), signal))) return undefined
    this.#held = { request, lease, name: node.name }
    this.#deps.report.clear('LEASE_LOST')
    return lease
  }

  #publicIp(node: KubeNode, request: LeaseRequest): Lease['publicIp'] {
    const { publicIp, faults } = publicAddresses(node, this.#options.prefix, request.publicIp)
    if (faults.length === 0) this.#deps.report.clear('NODE_ANNOTATION_INVALID')
    else
      this.#deps.report.raise(
        'NODE_ANNOTATION_INVALID',
        faults.map(({ text }) => text).join('; '),
        `correct the annotation, or remove it: kubectl annotate node ${node.name} ${faults.map(({ annotation }) => `${annotation}-`).join(' ')}`
      )
    return publicIp
  }

  /** The lease that the node published before, flanneld's included: peers know its VTEP MAC. */
  #previousLease(node: KubeNode): Lease | undefined {
    try {
      return leaseOfNode(node, this.#options.prefix)
    } catch (error) {
      this.#deps.log.warn({ reason: reasonOf(error) }, 'the annotations of our node cannot be parsed and are replaced')
      return undefined
    }
  }

  /**
   * False when the node does not exist. Patches nodes/status, so that weftd needs no more permissions than flanneld.
   */
  async #patch(node: KubeNode, body: JsonObject | undefined, signal: AbortSignal): Promise<boolean> {
    if (body === undefined) return true
    const patch = {
      verb: 'PATCH',
      path: `${pathOf(node.name)}/status`,
      query: { fieldManager: 'weftd' },
      body
    } as const
    const attempt = async () => {
      const { status, body: answer } = await this.#api.persist(patch, signal)
      if (status === 200 || status === 404) return status === 200
      if (status === CONFLICT) return undefined
      throw new WeftError(
        'NO_LEASE',
        `PATCH ${patch.path} at ${this.#api.place} was answered with ${status}: ${String(answer.message)}`,
        'check the log of the API server'
      )
    }
    return retry(attempt, { signal })
  }

  /** This node's network works: sets NetworkUnavailable to False and keeps it. */
  announce(): void {
    if (!this.#options.setNetworkUnavailable) return
    this.#announced = true
    this.#repair()
  }

  /** Our node as the watch reports it; `undefined` when it was deleted. */
  onNode(node: KubeNode | undefined): void {
    this.#changed.notify()
    const held = this.#held
    if (held !== undefined && (node === undefined || this.#isChanged(node, held))) this.#repair()
  }

  #isChanged(node: KubeNode, { request, lease }: Held): boolean {
    if (!hasSubnets(node, lease)) return true
    const { publicIp } = publicAddresses(node, this.#options.prefix, request.publicIp)
    return annotationDifferences(node, { ...lease, publicIp }).length > 0 || this.#isUnavailable(node)
  }

  #isUnavailable(node: KubeNode): boolean {
    return this.#announced && node.networkUnavailable !== 'False'
  }

  /** Starts repairing our node, or makes the repair in progress run once more. */
  #repair(): void {
    this.#repairAgain = true
    this.#repairing ??= this.#repairAll()
      .catch((error) => {
        if (!this.#ended.signal.aborted) this.#deps.log.error({ err: error }, 'repairing our node’s annotations failed')
      })
      .finally(() => {
        this.#repairing = undefined
      })
  }

  async #repairAll(): Promise<void> {
    const { signal } = this.#ended
    while (this.#repairAgain && this.#held !== undefined) {
      this.#repairAgain = false
      // Another program that keeps changing the node gets slower answers, not more of them.
      if (performance.now() - this.#repairedAt > CALM) this.#repairBackoff.reset()
      else await this.#repairBackoff.pause(signal)
      const node = await this.#get(this.#held.name, signal)
      if (this.#held !== undefined && (await this.#repairOnce(node, this.#held))) this.#repairedAt = performance.now()
    }
  }

  /** Whether something was written. */
  async #repairOnce(node: KubeNode | undefined, held: Held): Promise<boolean> {
    const { signal } = this.#ended
    if (node === undefined) {
      this.#deps.report.raise('NODE_UNKNOWN', `node ${held.name} was deleted`)
      return false
    }
    this.#deps.report.clear('NODE_UNKNOWN')
    if (!hasSubnets(node, held.lease)) {
      const now = node.podCidrs.join(' and ') || 'no podCIDR'
      this.#deps.report.raise('LEASE_LOST', `node ${held.name} was recreated and now has ${now}`)
      return false
    }
    this.#deps.report.clear('LEASE_LOST')
    // An administrator may override the address at any time; everything else follows from our devices.
    const lease = { ...held.lease, publicIp: this.#publicIp(node, held.request) }
    const differences = annotationDifferences(node, lease)
    const written = await this.#patch(node, annotationPatch(node, lease, this.#options.prefix), signal)
    if (!written) return false
    if (this.#held === held) this.#held = { ...held, lease }
    if (differences.length > 0)
      this.#deps.log.warn(
        { node: node.name, differences },
        'our annotations were changed by another program and are written again'
      )
    if (!this.#isUnavailable(node)) return differences.length > 0
    const now = new Date().toISOString().replace(/\.\d+/, '')
    await this.#patch(node, networkAvailable(now), signal)
    this.#deps.log.info({ node: node.name, was: node.networkUnavailable }, 'NetworkUnavailable set to False')
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#repairing
  }
}

const pathOf = (name: string): string => `/api/v1/nodes/${encodeURIComponent(name)}`
