// Why a node has no podCIDR: nobody hands them out, or they are used up. The evidence that the API server has.
import { type Prefix, perFamily } from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import type { JsonObject } from '../../config/json.ts'
import type { NetConf } from '../../config/net-conf.ts'
import { type KubeApi, KubeError } from '../../kube/api.ts'
import { listAll } from '../../kube/list.ts'
import type { KubeBody } from '../../kube/protobuf.ts'
import { nodeOf } from './node.ts'
import { type KubeNode, podSubnets, usedUp } from './record.ts'

export type Evidence = {
  /** Why they are used up, as a sentence; `undefined` when nothing says that they are. */
  readonly used: string | undefined
  /** How it is with the other nodes, as a sentence. */
  readonly others: string
}

/** Milliseconds between two looks: a list of all nodes of a large cluster is not for every second. */
const AGAIN = 60_000

export class PodCidrDiagnosis {
  readonly #api: KubeApi
  readonly #prefix: string
  #lookedAt = Number.NEGATIVE_INFINITY
  #last: Evidence = { used: undefined, others: 'how it is with the other nodes is not known yet' }

  constructor(api: KubeApi, prefix: string) {
    this.#api = api
    this.#prefix = prefix
  }

  /** At most a minute old. Errors: the signal's reason. */
  async look(node: KubeNode, conf: NetConf, signal: AbortSignal): Promise<Evidence> {
    const now = performance.now()
    if (now - this.#lookedAt < AGAIN) return this.#last
    this.#lookedAt = now
    try {
      const said = await this.#refusal(node, signal)
      const { given, having, others } = await this.#others(node, signal)
      const ranges = perFamily(conf.families).map(([, range]) => range.network)
      const used = said ?? ranges.map((range) => usedUp(given, range)).find((text) => text !== undefined)
      this.#last = { used, others: `${having} of the ${others} other nodes have one` }
    } catch (error) {
      // A condition says it already; without this evidence it is a missing podCIDR still.
      if (!(error instanceof WeftError)) throw error
    }
    return this.#last
  }

  /** What the controller manager says when it has no subnet left: an event of reason CIDRNotAvailable (pkg/controller/nodeipam). */
  async #refusal({ name }: KubeNode, signal: AbortSignal): Promise<string | undefined> {
    const fieldSelector = `involvedObject.kind=Node,involvedObject.name=${name},reason=CIDRNotAvailable`
    const query = { fieldSelector, limit: '1' }
    const answer = await this.#api.attempt({ verb: 'GET', path: '/api/v1/namespaces/default/events', query }, signal)
    // Not being allowed to read events is no fault: the list of nodes has evidence too.
    const [event] = (answer instanceof KubeError ? [] : (answer.body.items ?? [])) as readonly JsonObject[]
    return event && `the controller manager has none left (event CIDRNotAvailable: ${event.message})`
  }

  async #others(node: KubeNode, signal: AbortSignal): Promise<{ given: Prefix[]; having: number; others: number }> {
    const found = { given: [] as Prefix[], having: 0, others: 0 }
    const count = (object: KubeBody) => {
      const other = nodeOf(object, this.#prefix)
      if (other.name === node.name) return
      const subnets = perFamily(podSubnets(other)).map(([, prefix]) => prefix)
      found.others++
      if (subnets.length > 0) found.having++
      found.given.push(...subnets)
    }
    const listing = { path: '/api/v1/nodes', protobuf: true, page: 100 }
    const listed = await listAll(this.#api, listing, count, signal)
    if ('status' in listed) throw new KubeError('STORE_UNREACHABLE', listed.message, 'try again', listed)
    return found
  }
}
