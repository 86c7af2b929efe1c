// What follows from verdicts: the conditions that packets of pods to a node are lost, or those of full size are; and the
// report that the other nodes can read.
import { formatIp, perFamily } from '../../ipam/address.ts'
import type { Health } from '../health/health.ts'
import type { Peers } from '../peers/peers.ts'
import { isBad, SEVERITY, type Verdict } from './judge.ts'
import { WAYS, type Way } from './probe-packet.ts'
import type { ProbeViews, WayView } from './probe-views.ts'
import type { Prober } from './prober.ts'

export type ProbeReportDeps = {
  readonly prober: Pick<Prober, 'forEach' | 'look'>
  readonly views: Pick<ProbeViews, 'of'>
  readonly peers: Pick<Peers, 'leases'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  /** Where the store carries reports. */
  readonly publish?: ((report: string) => void) | undefined
  readonly nodeName: string
  /** Milliseconds since 1970. */
  readonly now: () => number
}

/** A finding as a condition has it. */
export type Finding = { readonly detail: string; readonly cure: string }

/** What this node publishes of its ways to the others. */
export type PublishedReport = {
  readonly node: string
  /** ISO 8601. */
  readonly at: string
  /** How many peers are asked. */
  readonly asked: number
  readonly bad: readonly {
    readonly key: string
    readonly way: Way
    readonly family: 'ipv4' | 'ipv6'
    readonly verdict: Verdict
    readonly since: string
  }[]
  /** Of a report that was read: more may be bad than it has room for. */
  readonly cut?: true
}

/** Milliseconds for which a node may be away without a condition, and after which there is none any more. */
const REBOOT = 180_000
const FORGOTTEN = 3_600_000
/** Ways in one report: some kB. */
const MOST_BAD = 100
/**
 * Milliseconds between two reports for each peer: a partition of 5,000 nodes changes all reports for minutes, and etcd
 * keeps each version of them until it compacts.
 */
const REST_A_PEER = 60
/** Peers up to which there is no rest here: the store has one, and writes the last report after it. */
const FEW = 80

/** Milliseconds for which a condition that differs in the number of other nodes alone stays as it was. */
const COUNTED = 25_000

type Bad = { readonly key: string; readonly family: 4 | 6; readonly verdict: Verdict }

export class ProbeReport {
  readonly #deps: ProbeReportDeps
  /** Full-size packets that are lost, for the condition of the path MTU. */
  #large: Finding | undefined
  /** What the last report said, without its times. */
  #published = ''
  #publishedAt = 0
  /** What the conditions say: in a partition the number of nodes changes for minutes, and each change is a log line. */
  readonly #said = new Map<'lost' | 'large', Finding & { readonly text: string; readonly at: number }>()

  constructor(deps: ProbeReportDeps) {
    this.#deps = deps
  }

  get large(): Finding | undefined {
    return this.#large
  }

  /** Looks at all verdicts. */
  update(): void {
    this.#publish()
    const lost: Bad[] = []
    const large: Bad[] = []
    this.#deps.prober.forEach((key, family, way, verdict) => {
      if (way !== 'pods' || !isBad(verdict)) return
      if (this.#isAway(key, family)) return
      if (verdict === 'large-lost') large.push({ key, family, verdict })
      // With host-firewall packets arrive; only echo is not answered.
      else if (verdict === 'lost' || verdict === 'out-lost' || verdict === 'back-lost')
        lost.push({ key, family, verdict })
    })
    this.#large = this.#finding('large', large)
    const finding = this.#finding('lost', lost)
    if (finding === undefined) this.#deps.health.clear('UNDERLAY_LOST')
    else this.#deps.health.raise('UNDERLAY_LOST', finding.detail, finding.cure)
  }

  /**
   * The node itself does not answer: while it may be starting again, and once it has been away for long, that is no
   * condition of this node. A reboot would otherwise be one on thousands. Where node addresses never answer (many
   * networks drop ICMP between them), it may be starting as long as nothing shows that it is there.
   */
  #isAway(key: string, family: 4 | 6): boolean {
    const { prober } = this.#deps
    const nodes = prober.look(key, family, 'nodes')?.judgement.verdict
    if (nodes !== 'lost' && nodes !== 'not-asked') return false
    const { judgement, sinceMsAgo = 0 } = prober.look(key, family, 'pods') ?? {}
    if (nodes === 'lost') return sinceMsAgo < REBOOT || sinceMsAgo > FORGOTTEN
    const isSilent = judgement?.verdict === 'lost' && judgement.out === undefined && judgement.back === undefined
    return isSilent && sinceMsAgo < REBOOT
  }

  #publish(): void {
    const { prober, publish, nodeName, now } = this.#deps
    if (publish === undefined) return
    const asked = new Set<string>()
    const bad: PublishedReport['bad'][number][] = []
    prober.forEach((key, family, way, verdict) => {
      if (way === 'pods' && verdict !== 'not-asked') asked.add(key)
      if (!isBad(verdict) || bad.length === MOST_BAD) return
      const ago = prober.look(key, family, way)?.sinceMsAgo ?? 0
      // To the second: the clock and the counting of tenths are not read at the same moment.
      const since = new Date(Math.round((now() - ago) / 1_000) * 1_000).toISOString()
      bad.push({ key, way, family: family === 4 ? 'ipv4' : 'ipv6', verdict, since })
    })
    const text = JSON.stringify([asked.size, bad.map(({ since, ...each }) => each)])
    if (text === this.#published) return
    const elapsed = now() - this.#publishedAt
    // A clock that was set back does not count.
    if (asked.size > FEW && elapsed >= 0 && elapsed < asked.size * REST_A_PEER) return
    this.#published = text
    this.#publishedAt = now()
    const report: PublishedReport = { node: nodeName, at: new Date(now()).toISOString(), asked: asked.size, bad }
    publish(JSON.stringify(report))
  }

  /** The worst one's sentence, and how many more there are. */
  #finding(of: 'lost' | 'large', bad: readonly Bad[]): Finding | undefined {
    const rank = ({ verdict }: Bad) => SEVERITY.indexOf(verdict)
    // One whose direction is known says more about the cause.
    const [first] = bad.toSorted((a, b) => rank(b) - rank(a))
    const lease = first && this.#deps.peers.leases.get(first.key)
    const said = this.#said.get(of)
    if (first === undefined || lease === undefined) {
      this.#said.delete(of)
      return undefined
    }
    const isIt = ({ way, family }: WayView) => way === 'pods' && family === first.family
    const view = this.#deps.views.of(first.key, lease).find(isIt)
    const name = lease.node ?? perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))[0] ?? first.key
    const text = view?.text ?? `packets to ${name} are lost`
    const elapsed = this.#deps.now() - (said?.at ?? 0)
    if (said?.text === text && elapsed >= 0 && elapsed < COUNTED) return said
    const nodes = new Set(bad.map(({ key }) => key)).size - 1
    const more = nodes === 0 ? '' : ` (and ${nodes} more node${nodes === 1 ? '' : 's'})`
    const cure = view?.cure ?? `run weftctl why node ${name}`
    const finding = { detail: `${text}${more}`, cure, text, at: this.#deps.now() }
    this.#said.set(of, finding)
    return finding
  }
}

/**
 * Reads what another node published; `undefined`: it is no report. Whoever writes to the store writes this, and all of it
 * is kept, sent and shown: nothing is longer than a node makes it, and members that are not known are left out.
 */
export function readReport(text: string): PublishedReport | undefined {
  if (text.length > LONGEST_REPORT) return undefined
  try {
    const { node, at, asked, bad } = JSON.parse(text) as Partial<PublishedReport>
    if (!isText(node, LONGEST_NAME) || !isText(at, LONGEST_TIME) || !Number.isSafeInteger(asked)) return undefined
    if (!Array.isArray(bad)) return undefined
    return {
      ...{ node, at, asked: Math.max(0, asked ?? 0), bad: bad.flatMap(readBad).slice(0, MOST_BAD) },
      ...(bad.length >= MOST_BAD && { cut: true })
    }
  } catch {
    return undefined
  }
}

/** Characters of a report with MOST_BAD ways, several times over; of a lease's key; of a node's name (RFC 1123). */
const LONGEST_REPORT = 128 << 10
const LONGEST_KEY = 100
const LONGEST_NAME = 253
/** Of ISO 8601. */
const LONGEST_TIME = 40

const isText = (value: unknown, most: number): value is string => typeof value === 'string' && value.length <= most

function readBad(each: unknown): PublishedReport['bad'] {
  const { key, way, family, verdict, since } = (each ?? {}) as Partial<PublishedReport['bad'][number]>
  if (!isText(key, LONGEST_KEY) || !isText(since, LONGEST_TIME) || (family !== 'ipv4' && family !== 'ipv6')) return []
  if (way === undefined || !WAYS.includes(way) || verdict === undefined || !SEVERITY.includes(verdict)) return []
  return [{ key, way, family, verdict, since }]
}
