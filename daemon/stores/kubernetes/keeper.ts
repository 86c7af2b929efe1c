// Our own node in the Kubernetes API: its podCIDRs are our subnets, its annotations our lease, written again whenever somebody changes them.
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
import { PodCidrDiagnosis } from './podcidr-diagnosis.ts'
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
  /** POD_NAME and POD_NAMESPACE: our own pod, whose spec.nodeName is the node. */
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

type Held = { readonly wish: LeaseRequest; readonly lease: Lease; readonly name: string }

/** Milliseconds after which what we wrote has been left alone long enough to write at once again. */
const CALM = 60_000
/** Others wrote the node again and again while the API server put our patch to it: on a busy node that happens, and means nothing. */
const CONFLICT = 409
/** Every condition that says why there is no subnet: at most one holds. */
const WHY: readonly ConditionCode[] = ['NODE_UNKNOWN', 'POD_CIDR_MISSING', 'POD_CIDR_OUTSIDE', 'POD_CIDRS_EXHAUSTED']

export class NodeKeeper implements AsyncDisposable {
  readonly #api: KubeApi
  readonly #options: NodeKeeperOptions
  readonly #deps: StoreDeps
  readonly #shortage: PodCidrDiagnosis
  readonly #ended = new AbortController()
  #name: string | undefined
  #uid: string | undefined
  #held: Held | undefined
  #announced = false
  readonly #changed = new Wakeup()
  #mending: Promise<void> | undefined
  #mendAgain = false
  readonly #mendBackoff = new Backoff()
  #mendedAt = Number.NEGATIVE_INFINITY

  constructor(api: KubeApi, options: NodeKeeperOptions, deps: StoreDeps) {
    this.#api = api
    this.#options = options
    this.#deps = deps
    this.#shortage = new PodCidrDiagnosis(api, options.prefix)
  }

  /** Our node's name, once `acquire` has found it. */
  get name(): string | undefined {
    return this.#name
  }

  /** Our node as the object of events; without it in the API its name stands for its uid, as in the kubelet's own events. */
  get node(): Regarding | undefined {
    const name = this.#name
    return name === undefined ? undefined : { apiVersion: 'v1', kind: 'Node', name, uid: this.#uid ?? name }
  }

  /**
   * See Store.acquire. Waits until the node exists and has podCIDRs that fit, saying by a condition what is missing. Errors: LEASE_MALFORMED for podCIDRs that
   * are none.
   */
  async acquire(wish: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const either = AbortSignal.any([signal, this.#ended.signal])
    this.#name ??= await this.#ownName(wish, either)
    const backoff = new Backoff()
    for (;;) {
      const changed = this.#changed.next()
      const node = await this.#get(this.#name, either)
      const subnet = await this.#subnetOf(node, wish, either)
      if (node !== undefined && subnet !== undefined) {
        const lease = await this.#publish(node, wish, subnet, either)
        if (lease !== undefined) return lease
      }
      // The watch tells when the node changes; a look now and then is for the time in which there is no watch.
      await Promise.race([changed, backoff.pause(either)])
    }
  }

  /** In flannel's order, then the name that the kubelet takes by itself: the host's in lower case. */
  async #ownName(wish: LeaseRequest, signal: AbortSignal): Promise<string> {
    const { nodeName, podName, podNamespace } = this.#options
    if (nodeName) return nodeName
    if (!podName || !podNamespace) return wish.node.toLowerCase()
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

  /** The subnets that the node gives us, or `undefined` with the condition that says why there are none. */
  async #subnetOf(
    node: KubeNode | undefined,
    wish: LeaseRequest,
    signal: AbortSignal
  ): Promise<PerFamily<Prefix> | undefined> {
    if (node === undefined) {
      this.#why('NODE_UNKNOWN', `${this.#api.place} has no node ${this.#name}`)
      return undefined
    }
    const placement = placementOf(node, wish.network)
    if (placement.kind === 'fits') {
      this.#why(undefined, '')
      return placement.subnet
    }
    if (placement.kind === 'outside') this.#why('POD_CIDR_OUTSIDE', placement.detail)
    else {
      const { used, others } = await this.#shortage.look(node, wish.network, signal)
      if (used === undefined) this.#why('POD_CIDR_MISSING', `${placement.detail}; ${others}`)
      else this.#why('POD_CIDRS_EXHAUSTED', `${placement.detail}: ${used}`)
    }
    return undefined
  }

  #why(code: ConditionCode | undefined, detail: string): void {
    for (const other of WHY) if (other !== code) this.#deps.report.clear(other)
    if (code !== undefined) this.#deps.report.raise(code, detail)
  }

  /** Writes the annotations where they differ; `undefined` when the node went away meanwhile. */
  async #publish(
    node: KubeNode,
    wish: LeaseRequest,
    subnet: PerFamily<Prefix>,
    signal: AbortSignal
  ): Promise<Lease | undefined> {
    const { backendType } = wish
    const backendData = wish.backendData(this.#before(node))
    const lease = { subnet, publicIp: this.#publicIp(node, wish), backendType, backendData, node: node.name }
    if (!(await this.#patch(node, annotationPatch(node, lease, this.#options.prefix), signal))) return undefined
    this.#held = { wish, lease, name: node.name }
    this.#deps.report.clear('LEASE_LOST')
    return lease
  }

  #publicIp(node: KubeNode, wish: LeaseRequest): Lease['publicIp'] {
    const { publicIp, faults } = publicAddresses(node, this.#options.prefix, wish.publicIp)
    if (faults.length === 0) this.#deps.report.clear('NODE_ANNOTATION_INVALID')
    else this.#deps.report.raise('NODE_ANNOTATION_INVALID', faults.join('; '))
    return publicIp
  }

  /** What the node published before, flanneld's included: its VTEP MAC is known to the peers. */
  #before(node: KubeNode): Lease | undefined {
    try {
      return leaseOfNode(node, this.#options.prefix)
    } catch (error) {
      this.#deps.log.warn({ reason: reasonOf(error) }, 'what our node publishes can not be understood and is replaced')
      return undefined
    }
  }

  /** False when the node is gone. Everything goes through nodes/status, so that weftd needs no more rights than flanneld does. */
  async #patch(node: KubeNode, body: JsonObject | undefined, signal: AbortSignal): Promise<boolean> {
    if (body === undefined) return true
    const request = {
      verb: 'PATCH',
      path: `${pathOf(node.name)}/status`,
      query: { fieldManager: 'weftd' },
      body
    } as const
    const attempt = async () => {
      const { status, body: answer } = await this.#api.persist(request, signal)
      if (status === 200 || status === 404) return status === 200
      if (status === CONFLICT) return undefined
      throw new WeftError(
        'NO_LEASE',
        `PATCH ${request.path} at ${this.#api.place} was answered with ${status}: ${String(answer.message)}`,
        'see the log of the API server'
      )
    }
    return retry(attempt, { signal })
  }

  /** The network of this node works: NetworkUnavailable becomes False, and is kept so. */
  announce(): void {
    if (!this.#options.setNetworkUnavailable) return
    this.#announced = true
    this.#mend()
  }

  /** News of our node by the watch; `undefined`: it is gone. */
  happened(node: KubeNode | undefined): void {
    this.#changed.notify()
    const held = this.#held
    if (held !== undefined && (node === undefined || this.#isWrong(node, held))) this.#mend()
  }

  #isWrong(node: KubeNode, { wish, lease }: Held): boolean {
    if (!hasSubnets(node, lease)) return true
    const { publicIp } = publicAddresses(node, this.#options.prefix, wish.publicIp)
    return annotationDifferences(node, { ...lease, publicIp }).length > 0 || this.#isUnavailable(node)
  }

  #isUnavailable(node: KubeNode): boolean {
    return this.#announced && node.networkUnavailable !== 'False'
  }

  /** Starts putting our node right, or has it done once more by whoever is at it. */
  #mend(): void {
    this.#mendAgain = true
    this.#mending ??= this.#mendAll()
      .catch((error) => {
        if (!this.#ended.signal.aborted) this.#deps.log.error({ err: error }, 'keeping our node’s annotations failed')
      })
      .finally(() => {
        this.#mending = undefined
      })
  }

  async #mendAll(): Promise<void> {
    const { signal } = this.#ended
    while (this.#mendAgain && this.#held !== undefined) {
      this.#mendAgain = false
      // Whoever keeps changing them slows us down, not the other way round.
      if (performance.now() - this.#mendedAt > CALM) this.#mendBackoff.reset()
      else await this.#mendBackoff.pause(signal)
      const node = await this.#get(this.#held.name, signal)
      if (this.#held !== undefined && (await this.#mendOnce(node, this.#held))) this.#mendedAt = performance.now()
    }
  }

  /** Whether something was written. */
  async #mendOnce(node: KubeNode | undefined, held: Held): Promise<boolean> {
    const { signal } = this.#ended
    if (node === undefined) {
      this.#deps.report.raise('NODE_UNKNOWN', `node ${held.name} was deleted`)
      return false
    }
    this.#deps.report.clear('NODE_UNKNOWN')
    if (!hasSubnets(node, held.lease)) {
      const now = node.podCidrs.join(' and ') || 'no podCIDR'
      this.#deps.report.raise('LEASE_LOST', `node ${held.name} was made anew and now has ${now}`)
      return false
    }
    this.#deps.report.clear('LEASE_LOST')
    // An administrator may overwrite the address at any time; all else stays what our devices are.
    const lease = { ...held.lease, publicIp: this.#publicIp(node, held.wish) }
    const differences = annotationDifferences(node, lease)
    const written = await this.#patch(node, annotationPatch(node, lease, this.#options.prefix), signal)
    if (!written) return false
    if (this.#held === held) this.#held = { ...held, lease }
    if (differences.length > 0)
      this.#deps.log.warn({ node: node.name, differences }, 'our annotations were changed and are written again')
    if (!this.#isUnavailable(node)) return differences.length > 0
    const now = new Date().toISOString().replace(/\.\d+/, '')
    await this.#patch(node, networkAvailable(now), signal)
    this.#deps.log.info({ node: node.name, was: node.networkUnavailable }, 'NetworkUnavailable set to False')
    return true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#mending
  }
}

const pathOf = (name: string): string => `/api/v1/nodes/${encodeURIComponent(name)}`
