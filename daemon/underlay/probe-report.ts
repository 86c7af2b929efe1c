// Conditions from verdicts: packets of pods to a node are lost, or those of full size are.
import { formatIp, perFamily } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Peers } from '../peers/peers.ts'
import { SEVERITY, type Verdict } from './judge.ts'
import type { ProbeViews, WayView } from './probe-views.ts'
import type { Prober } from './prober.ts'

export type ProbeReportDeps = {
  readonly prober: Pick<Prober, 'forEach'>
  readonly views: Pick<ProbeViews, 'of'>
  readonly peers: Pick<Peers, 'leases'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
}

/** A finding as a condition has it. */
export type Finding = { readonly detail: string; readonly cure: string }

type Bad = { readonly key: string; readonly family: 4 | 6; readonly verdict: Verdict }

export class ProbeReport {
  readonly #deps: ProbeReportDeps
  /** Full-size packets that are lost, for the condition of the path MTU. */
  #large: Finding | undefined

  constructor(deps: ProbeReportDeps) {
    this.#deps = deps
  }

  get large(): Finding | undefined {
    return this.#large
  }

  /** Looks at all verdicts on the ways of pods' packets. */
  update(): void {
    const lost: Bad[] = []
    const large: Bad[] = []
    this.#deps.prober.forEach((key, family, way, verdict) => {
      if (way !== 'pods') return
      if (verdict === 'large-lost') large.push({ key, family, verdict })
      // With host-firewall packets arrive; only echo is not answered.
      else if (verdict === 'lost' || verdict === 'out-lost' || verdict === 'back-lost')
        lost.push({ key, family, verdict })
    })
    this.#large = this.#finding(large)
    const finding = this.#finding(lost)
    if (finding === undefined) this.#deps.health.clear('UNDERLAY_LOST')
    else this.#deps.health.raise('UNDERLAY_LOST', finding.detail, finding.cure)
  }

  /** The worst one's sentence, and how many more there are. */
  #finding(bad: readonly Bad[]): Finding | undefined {
    const rank = ({ verdict }: Bad) => SEVERITY.indexOf(verdict)
    // One whose direction is known says more about the cause.
    const [first] = bad.toSorted((a, b) => rank(b) - rank(a))
    const lease = first && this.#deps.peers.leases.get(first.key)
    if (first === undefined || lease === undefined) return undefined
    const isIt = ({ way, family }: WayView) => way === 'pods' && family === first.family
    const view = this.#deps.views.of(first.key, lease).find(isIt)
    const nodes = new Set(bad.map(({ key }) => key)).size - 1
    const more = nodes === 0 ? '' : ` (and ${nodes} more node${nodes === 1 ? '' : 's'})`
    const name = lease.node ?? perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))[0] ?? first.key
    return {
      detail: `${view?.text ?? `packets to ${name} are lost`}${more}`,
      cure: view?.cure ?? `run weftctl why node ${name}`
    }
  }
}
