// What probes found, as weftctl and other nodes get it: for each peer the ways to it with verdict, sentence and cure.
import { FAMILIES, type Family, formatIp, perFamily } from '../../ipam/address.ts'
import { TRANSLATED_PORT } from '../firewall/translated-probe.ts'
import { type Lease, typeOf } from '../lease/lease.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import { SEVERITY, type Verdict } from './judge.ts'
import type { Look } from './probe-look.ts'
import type { Way } from './probe-packet.ts'
import { type PlainUnused, plainText, wayText, wholeText } from './probe-text.ts'
import type { Prober } from './prober.ts'
import { findingText, type TranslatedFinding } from './translated-text.ts'

export type WayView = {
  readonly way: Way | 'translated'
  readonly family: Family
  readonly verdict: Verdict
  readonly text: string
  readonly cure?: string
  readonly roundTripUs?: number
  /** Milliseconds since 1970. */
  readonly since: number
  readonly answeredAt?: number
}

export type PeerView = { readonly key: string; readonly lease: Lease; readonly ways: readonly WayView[] }

export type ProbeViewsDeps = {
  readonly prober: Pick<Prober, 'look' | 'lookAt' | 'slotsOf' | 'routeTo'>
  readonly peers: Pick<Peers, 'leases' | 'isOwn' | 'skipped' | 'since'>
  readonly place: () => Pick<Place, 'node' | 'backend' | 'mtu'> | undefined
  /** Why the plain route to this node is not used, where there could be one. */
  readonly plainUnused?: (key: string, family: Family) => PlainUnused | undefined
  /** Of packets whose source port this node translates; `undefined`: they differ from others in nothing. */
  readonly translated?: (key: string, family: Family) => TranslatedFinding | undefined
  /** Milliseconds since 1970. */
  readonly now: () => number
}

const PLAIN_VERDICTS: Readonly<Record<PlainUnused['why'], Verdict>> = {
  ...{ left: 'lost', lost: 'lost', 'large-lost': 'large-lost', unheard: 'not-asked' },
  ...{ 'refused-here': 'not-asked', 'refused-there': 'not-asked', strict: 'not-asked' },
  ...{ 'left-strict': 'lost', 'no-trial': 'not-asked' }
}

type Looker = Prober['look']

export class ProbeViews {
  readonly #deps: ProbeViewsDeps

  constructor(deps: ProbeViewsDeps) {
    this.#deps = deps
  }

  /** All other nodes, the worst first. */
  all(): readonly PeerView[] {
    const { peers, prober } = this.#deps
    const slots = { 4: prober.slotsOf(4), 6: prober.slotsOf(6) }
    const look: Looker = (key, family, way) => {
      const slot = slots[family].get(key)
      return slot === undefined ? undefined : prober.lookAt(slot, way)
    }
    const found = [...peers.leases].flatMap(([key, lease]) =>
      peers.isOwn(key, lease) ? [] : [{ key, lease, ways: this.#ways(key, lease, look) }]
    )
    const ranked = found.map((view) => ({ view, rank: rankOf(view.ways) }))
    return ranked.sort((a, b) => a.rank - b.rank).map(({ view }) => view)
  }

  /** The ways to the node of this lease, pods' first. */
  of(key: string, lease: Lease): readonly WayView[] {
    return this.#ways(key, lease, (...asked) => this.#deps.prober.look(...asked))
  }

  #ways(key: string, lease: Lease, look: Looker): readonly WayView[] {
    return FAMILIES.flatMap((family) =>
      lease.subnet[family] === undefined
        ? []
        : [
            ...(['pods', 'nodes'] as const).flatMap((way) => this.#view(key, lease, { family, way, at: look })),
            ...this.#plain(key, lease, family),
            ...this.#translated(key, lease, family)
          ]
    )
  }

  /** The plain route that is not used although there could be one. */
  #plain(key: string, lease: Lease, family: Family): readonly WayView[] {
    const { place, plainUnused, now } = this.#deps
    const [unused, placed, there] = [plainUnused?.(key, family), place(), lease.publicIp[family]]
    if (unused === undefined || placed === undefined || there === undefined) return []
    const { device, publicIp } = placed.node
    const own = publicIp[family]
    const here = own === undefined ? placed.node.name : formatIp(own)
    const peer = lease.node ?? formatIp(there)
    return [
      {
        ...{ way: 'plain', family, verdict: PLAIN_VERDICTS[unused.why], since: now() - unused.msAgo },
        ...plainText(unused, { peer, here, there: formatIp(there), device })
      }
    ]
  }

  #translated(key: string, lease: Lease, family: Family): readonly WayView[] {
    const { place, translated, now, peers } = this.#deps
    const [found, placed] = [translated?.(key, family), place()]
    const [subnet, there] = [lease.subnet[family], perFamily(lease.publicIp)[0]]
    if (found === undefined || placed === undefined || subnet === undefined) return []
    const asked = formatIp(placed.backend.held(subnet, lease))
    const peer = lease.node ?? (there === undefined ? key : formatIp(there[1]))
    const at = found.is === 'not-asked' ? undefined : now() - found.msAgo
    return [
      {
        ...{ way: 'translated', family, verdict: found.is === 'silent' ? 'not-asked' : found.is },
        ...findingText(found, { peer, asked, port: TRANSLATED_PORT }),
        since: at ?? peers.since(key) ?? now(),
        ...(found.is === 'whole' && at !== undefined && { answeredAt: at })
      }
    ]
  }

  #view(
    key: string,
    lease: Lease,
    { family, way, at }: { readonly family: Family; readonly way: Way; readonly at: Looker }
  ): readonly WayView[] {
    const { place, now, peers } = this.#deps
    const { node } = place() ?? {}
    if (node !== undefined && node.subnet[family] === undefined) return []
    const look = at(key, family, way)
    const since = look === undefined ? (peers.since(key) ?? now()) : now() - look.sinceMsAgo
    const common = { way, family, since, verdict: look?.judgement.verdict ?? ('not-asked' as const) }
    if (look === undefined || common.verdict === 'not-asked')
      return [{ ...common, text: this.#whyNot(key, lease, way, look) }]
    return [
      {
        ...common,
        ...this.#text(key, lease, family, { way, look, at }),
        ...(look.answeredMsAgo !== undefined && { answeredAt: now() - look.answeredMsAgo }),
        ...(look.roundTripUs !== undefined && common.verdict === 'whole' && { roundTripUs: look.roundTripUs })
      }
    ]
  }

  #whyNot(key: string, lease: Lease, way: Way, look: Look | undefined): string {
    const { peers, place } = this.#deps
    const placed = place()
    if (placed === undefined) return 'this node has no subnet yet'
    const skipped = peers.skipped.get(key)
    if (skipped !== undefined) return skipped
    if (typeOf(lease) !== placed.backend.type && !placed.backend.serves(lease))
      return lease.backendType === ''
        ? 'the lease is reserved for a node that has not joined yet'
        : `its backend is ${lease.backendType}, and this network's is ${placed.backend.type}`
    if (look === undefined) return 'its lease has just been read'
    if (look.closed !== undefined) return look.closed
    if (look.isNew) return 'not asked yet: the node may still be setting up'
    if (way === 'nodes' && look.answeredMsAgo === undefined)
      return 'it does not answer ICMP echo between node addresses, which many networks drop; pods do not depend on it'
    if (way === 'pods' && !look.isHeard && !placed.backend.heldByAll)
      return 'no address of its subnet answers: a flanneld has none before its first pod'
    return 'not asked yet'
  }

  #text(
    key: string,
    lease: Lease,
    family: Family,
    { way, look, at }: { readonly way: Way; readonly look: Look; readonly at: Looker }
  ) {
    const { prober, place } = this.#deps
    const placed = place()
    const [subnet, there] = [lease.subnet[family], lease.publicIp[family]]
    if (look.judgement.verdict === 'whole' && placed !== undefined && subnet !== undefined && there !== undefined) {
      const asked = formatIp(way === 'nodes' ? there : placed.backend.held(subnet, lease))
      return { text: wholeText({ way, asked, roundTripUs: look.roundTripUs ?? 0, mtu: placed.mtu }) }
    }
    if (placed === undefined || subnet === undefined || there === undefined) return { text: look.judgement.verdict }
    const { node, backend, mtu } = placed
    const device = prober.routeTo(key, family)?.device ?? node.device
    const here = node.publicIp[family] ?? node.localIp[family]
    const [port] = backend.ports
    const nodes = at(key, family, 'nodes')
    return wayText({
      ...look.judgement,
      way,
      peer: lease.node ?? perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))[0] ?? key,
      here: here === undefined ? node.name : formatIp(here),
      there: formatIp(there),
      asked: formatIp(way === 'nodes' ? there : backend.held(subnet, lease)),
      ...(port !== undefined && device !== node.device && { port }),
      device: way === 'nodes' ? node.device : device,
      mtu,
      outerMtu: device === node.device ? mtu : backend.underlayMtu(node),
      roundTripUs: look.roundTripUs ?? 0,
      ...(look.refused !== undefined && { refused: look.refused }),
      dropsHere: look.dropsHere,
      ...(nodes?.judgement.verdict === 'whole' && { nodesAnswer: true }),
      ...(nodes?.judgement.verdict === 'lost' && { nodesAnswer: false })
    })
  }
}

/** The worst of a peer's ways; those that pods' packets don't take count only after those that they do. */
function rankOf(ways: readonly WayView[]): number {
  const ranks = (of: (way: WayView['way']) => boolean) =>
    ways.filter(({ way }) => of(way)).map(({ verdict }) => SEVERITY.indexOf(verdict))
  const [pods, others] = [ranks((way) => way === 'pods'), ranks((way) => way !== 'pods')]
  return Math.min(...pods, SEVERITY.length) * SEVERITY.length + Math.min(...others, SEVERITY.length - 1)
}
