// Puts together what asks the other nodes: raw sockets, a key of this process for the answers, metrics and conditions.
import { createCipheriv, randomBytes } from 'node:crypto'
import { regularContentOf } from '../ipam/files.ts'
import { LARGE_FILE } from '../ipam/read-file.ts'
import type { Log } from './base/log.ts'
import type { Health } from './health/health.ts'
import type { Metrics } from './health/metrics.ts'
import { readOffload } from './kernel/offload.ts'
import type { Store } from './lease/store.ts'
import type { Place } from './node/place.ts'
import { askPort } from './os/port-question.ts'
import { PacketSocket, RawSocket } from './os/raw-socket.ts'
import type { Peers } from './peers/peers.ts'
import type { RecentChanges } from './reconcile/recent-changes.ts'
import type { Reconciler } from './reconcile/reconciler.ts'
import type { Inspection } from './state/inspection.ts'
import type { Kernel } from './state/kernel.ts'
import { every } from './underlay/every.ts'
import { SEVERITY, type Verdict } from './underlay/judge.ts'
import { NarrowPaths } from './underlay/narrow-paths.ts'
import { NeighbourTable, type NeighbourTableDeps } from './underlay/neighbour-table.ts'
import { PathMtu } from './underlay/path-mtu.ts'
import { PlainWays } from './underlay/plain-ways.ts'
import type { Mac } from './underlay/probe-packet.ts'
import { ProbeReport, type PublishedReport, readReport } from './underlay/probe-report.ts'
import { ProbeViews } from './underlay/probe-views.ts'
import { Prober } from './underlay/prober.ts'
import { TranslatedWays } from './underlay/translated-ways.ts'

export type ProbesDeps = {
  readonly peers: Peers
  readonly reconciler: Reconciler
  readonly health: Health
  readonly metrics: Metrics
  readonly kernel: Kernel
  readonly inspection: Pick<Inspection, 'sysctl'>
  readonly log: Log
  readonly changes: Pick<RecentChanges, 'note'>
  readonly store: Pick<Store, 'publish' | 'reports'>
  readonly nodeName: string
  readonly place: () => Place | undefined
  readonly plainDrop: () => string | undefined
}

export type Probes = Disposable & {
  readonly views: ProbeViews
  readonly pathMtu: PathMtu
  /** What the other nodes published; `undefined`: the store carries no reports, or does not answer now. */
  reports(): Promise<readonly (PublishedReport & { readonly key: string })[] | undefined>
  /** Until the signal, and rejects with it. */
  follow(signal: AbortSignal): Promise<void>
}

export function openProbes({
  peers,
  reconciler,
  health,
  metrics,
  place,
  plainDrop,
  kernel,
  inspection,
  log,
  changes,
  store,
  nodeName
}: ProbesDeps): Probes {
  const roundTrips = metrics.histogram(
    'weft_probe_round_trip_seconds',
    "Time from a small probe to a peer's answer, on the path of pods' packets."
  )
  const prober = new Prober({
    ...{ peers, reconciler, health, place, plainDrop },
    open: (options) => new RawSocket(options),
    capture: (options) => new PacketSocket(options),
    mac: probeMac(),
    now: () => performance.now(),
    measured: (seconds) => roundTrips.observe(seconds),
    plainHeard: (key) => plain.nominate(key),
    changed: () => {
      narrow.touch()
      update()
    }
  })
  const views = new ProbeViews({
    prober,
    peers,
    place,
    plainUnused: (key, family) => plain.unused(key, family),
    translated: (...of) => translated.finding(...of),
    now: Date.now
  })
  const publish = store.publish?.bind(store)
  const report = new ProbeReport({ prober, views, peers, health, publish, nodeName, now: Date.now })
  const now = () => performance.now()
  const narrow = new NarrowPaths({ prober, peers, reconciler, place, log })
  const known = { proven: () => report.large, taken: () => narrow.action }
  const pathMtu = new PathMtu({ kernel, peers, place, health, log, now, ...known })
  const update = () => {
    report.update()
    pathMtu.report()
  }
  const plain = new PlainWays({ prober, peers, reconciler, plainDrop, place, log, now, sysctl: inspection.sysctl })
  const translated = new TranslatedWays({
    ...{ prober, peers, reconciler, health, place, log, now },
    ask: (question) =>
      askPort({ family: question.source.length === 4 ? 4 : 6, ...question, octets: QUESTION, patience: ANSWERED }),
    read: async (device) => (await readOffload(device))?.transmitChecksum,
    tracked: () => Number(inspection.sysctl(TRACKED) ?? 0),
    changed: (text) => changes.note(text)
  })
  metrics.gauge(
    'weft_peers',
    "Other nodes by the verdict of probes on the path of pods' packets, one for each family.",
    ['verdict'],
    (gauge) => {
      const counts = new Map<Verdict, number>(SEVERITY.map((verdict) => [verdict, 0]))
      prober.forEach((_key, _family, way, verdict) => {
        if (way === 'pods') counts.set(verdict, (counts.get(verdict) ?? 0) + 1)
      })
      for (const [verdict, count] of counts) gauge.set({ verdict }, count)
    }
  )
  return {
    views,
    pathMtu,
    reports: () => readReports(store, peers),
    follow: async (signal) =>
      void (await Promise.all([
        ...[prober.follow(signal), plain.follow(signal), translated.follow(signal), every(AGAIN, update, signal)],
        every(NARROW, async () => void ((await narrow.step()) && pathMtu.report()), signal),
        followNeighbours({ health, now, sysctl: inspection.sysctl }, signal)
      ])),
    [Symbol.dispose]: () => prober[Symbol.dispose]()
  }
}

function followNeighbours(deps: Omit<NeighbourTableDeps, 'stat'>, signal: AbortSignal): Promise<never> {
  const table = new NeighbourTable({ ...deps, stat: (name) => regularContentOf(`/proc/net/stat/${name}`, LARGE_FILE) })
  return every(NEIGHBOURS, () => table.step(), signal)
}

/**
 * A code for sixteen octets, with a key of this process: AES of one block is a pseudorandom function of it. An HMAC makes
 * several objects each time, and costs more than all the rest of a probe.
 */
export function probeMac(): Mac {
  const cipher = createCipheriv('aes-128-ecb', randomBytes(16), null).setAutoPadding(false)
  return (bytes) => cipher.update(bytes).subarray(0, 8)
}

/** Milliseconds until verdicts that did not change are looked at again: what follows depends on how long they last. */
const AGAIN = 30_000

/** Octets. */
const QUESTION = 18
const TRACKED = 'net/netfilter/nf_conntrack_count'
/** Milliseconds: hosts send ICMP errors to one address about once a second (icmp_ratelimit). */
const ANSWERED = 1_100

/** Milliseconds between two looks at routes whose path carries less. */
const NARROW = 3_000

/** Milliseconds between two looks at the kernel's tables of neighbours. */
const NEIGHBOURS = 10_000

/** Milliseconds that an answer waits for the store. */
const PATIENCE = 2_000

async function readReports(store: ProbesDeps['store'], peers: Peers): ReturnType<Probes['reports']> {
  if (store.reports === undefined) return undefined
  const late = Promise.withResolvers<undefined>()
  const timer = setTimeout(() => late.resolve(undefined), PATIENCE)
  try {
    const found = await Promise.race([store.reports(), late.promise])
    return found?.flatMap(({ key, text }) => {
      const report = peers.isOwn(key) ? undefined : readReport(text)
      return report === undefined ? [] : [{ ...report, key }]
    })
  } catch {
    return undefined
  } finally {
    clearTimeout(timer)
  }
}
