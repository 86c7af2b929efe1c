// Diagnoses why a node has no podCIDR: none are allocated, or all are used up; with the evidence from the API server.
import { formatPrefix, type Prefix, perFamily } from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import type { JsonObject } from '../../config/json.ts'
import type { NetConf } from '../../config/net-conf.ts'
import { type KubeApi, KubeError } from '../../kube/api.ts'
import { listAll } from '../../kube/list.ts'
import type { KubeBody } from '../../kube/protobuf.ts'
import { nodeOf } from './node.ts'
import { type KubeNode, podSubnets, usedUp } from './record.ts'

export type Evidence = {
  /** A sentence on why they are used up; `undefined` without evidence for that. */
  readonly used: string | undefined
  /** A sentence about the other nodes. */
  readonly others: string
}

/** The cure of POD_CIDR_MISSING for this network. */
export function missingCure(conf: NetConf): string {
  const cidr = perFamily(conf.families)
    .map(([, range]) => formatPrefix(range.network))
    .join(',')
  return `run the controller manager with --allocate-node-cidrs=true --cluster-cidr=${cidr} (kubeadm: init --pod-network-cidr=${cidr})`
}

/** The cure of POD_CIDR_OUTSIDE. */
export const outsideCure = (node: string): string =>
  `set Network in net-conf.json to the controller manager's --cluster-cidr and restart weftd, or delete the Node ${node} and let its kubelet register again`

/** Milliseconds between two diagnoses: listing all nodes of a large cluster is expensive. */
const INTERVAL = 60_000

export class PodCidrDiagnosis {
  readonly #api: KubeApi
  readonly #prefix: string
  #lookedAt = Number.NEGATIVE_INFINITY
  #last: Evidence = { used: undefined, others: 'whether other nodes have one is not known yet' }

  constructor(api: KubeApi, prefix: string) {
    this.#api = api
    this.#prefix = prefix
  }

  /** At most a minute old. Errors: the signal's reason. */
  async look(node: KubeNode, conf: NetConf, signal: AbortSignal): Promise<Evidence> {
    const now = performance.now()
    if (now - this.#lookedAt < INTERVAL) return this.#last
    this.#lookedAt = now
    try {
      const refused = await this.#refusal(node, signal)
      const { podCidrs, having, others } = await this.#others(node, signal)
      const ranges = perFamily(conf.families).map(([, range]) => range.network)
      const used = refused ?? ranges.map((range) => usedUp(podCidrs, range)).find((text) => text !== undefined)
      this.#last = { used, others: `${having} of the ${others} other nodes have one` }
    } catch (error) {
      // The API client has raised a condition; without evidence the podCIDR is simply missing.
      if (!(error instanceof WeftError)) throw error
    }
    return this.#last
  }

  /**
   * The event by which the controller manager reports that it has no subnet left, reason CIDRNotAvailable
   * (pkg/controller/nodeipam).
   */
  async #refusal({ name }: KubeNode, signal: AbortSignal): Promise<string | undefined> {
    const fieldSelector = `involvedObject.kind=Node,involvedObject.name=${name},reason=CIDRNotAvailable`
    const query = { fieldSelector, limit: '1' }
    const answer = await this.#api.attempt({ verb: 'GET', path: '/api/v1/namespaces/default/events', query }, signal)
    // Missing permission to read events is no error: the list of nodes is evidence too.
    const [event] = (answer instanceof KubeError ? [] : (answer.body.items ?? [])) as readonly JsonObject[]
    return event && `the controller manager has none left (event CIDRNotAvailable: ${event.message})`
  }

  async #others(node: KubeNode, signal: AbortSignal): Promise<{ podCidrs: Prefix[]; having: number; others: number }> {
    const found = { podCidrs: [] as Prefix[], having: 0, others: 0 }
    const count = (object: KubeBody) => {
      const other = nodeOf(object, this.#prefix)
      if (other.name === node.name) return
      const subnets = perFamily(podSubnets(other)).map(([, prefix]) => prefix)
      found.others++
      if (subnets.length > 0) found.having++
      found.podCidrs.push(...subnets)
    }
    const listing = { path: '/api/v1/nodes', protobuf: true, page: 100 }
    const listed = await listAll(this.#api, listing, count, signal)
    if ('status' in listed) throw new KubeError('STORE_UNREACHABLE', listed.message, 'try again', listed)
    return found
  }
}
