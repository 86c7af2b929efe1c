// The daemon's parts in the order in which they need each other: kernel, reconciler, store, network, pods, servers; and their end.
import { join } from 'node:path'
import { contains, type PerFamily, type Prefix, perFamily } from '../ipam/address.ts'
import { AfterBurst } from './after-burst.ts'
import { controlVerbs } from './api/control.ts'
import { serve } from './api/server.ts'
import type { Log } from './base/log.ts'
import type { Options } from './cli/flag-table.ts'
import { CallHistory } from './cni/call-history.ts'
import { cniCalls } from './cni/calls.ts'
import type { Health } from './health/health.ts'
import { serveHttp } from './health/http.ts'
import type { Metrics } from './health/metrics.ts'
import { type Feature, features } from './kernel/features.ts'
import { openKernel } from './kernel/kernel.ts'
import { Firewall } from './kernel/nftables/firewall.ts'
import { DaemonSetWatch, daemonSetEvents } from './kube/daemonset.ts'
import type { Store } from './lease/store.ts'
import { keepConflist } from './lifecycle/conflist-file.ts'
import { lockSingleInstance } from './lifecycle/single-instance.ts'
import { uninstall } from './lifecycle/uninstall.ts'
import { ForeignFirewall } from './node/foreign-firewall.ts'
import { LeaseFile, leaseFilePath } from './node/lease-file.ts'
import { Membership, type MembershipDeps } from './node/membership.ts'
import { nodeObjects } from './node/node-objects.ts'
import { networksOf, type Place } from './node/place.ts'
import { reportMissingFeatures, untilNoneMissing } from './node/required-features.ts'
import { previousSubnets, SubnetFile } from './node/subnet-file.ts'
import { Peers } from './peers/peers.ts'
import type { PodContext } from './pod/context.ts'
import { keepPods } from './pod/recovery/keep-pods.ts'
import { rebuild, reserved } from './pod/recovery/rebuild.ts'
import { podContext } from './pod-context.ts'
import { Reconciler } from './reconcile/reconciler.ts'
import { repairReport } from './reconcile/repair-report.ts'
import type { Kernel } from './state/kernel.ts'
import type { KernelObject } from './state/object.ts'
import { openStore } from './stores/registry.ts'
import { PathMtu } from './underlay/path-mtu.ts'

export type DaemonDeps = {
  readonly options: Options
  readonly log: Log
  readonly health: Health
  readonly metrics: Metrics
  readonly version: string
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
  /** The environment's variables. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Milliseconds that a list from which most leases have vanished must stand before it is believed. */
const DOUBT = 60_000
/** Milliseconds that the store has for its first answer before we begin with the lease of an earlier weftd. */
const PATIENCE = 2_000

/** While one of these holds, it is not known whether the store still has our lease. */
const LEASE_DOUBTFUL: ReadonlySet<string> = new Set(['STORE_UNREACHABLE', 'STORE_DENIED', 'LEASE_LOST', 'STARTING'])

/** What everything else stands on. `place` is set once this node holds a subnet. */
type Core = {
  readonly signal: AbortSignal
  readonly firewall: Firewall
  readonly kernel: Kernel
  readonly reconciler: Reconciler
  /** Work that lasts as long as the daemon: should it fail, the daemon ends. */
  readonly running: (work: Promise<unknown>) => void
  readonly failure: Promise<never>
  place?: Place
  /** Set where forwarded packets are to pass other programs' firewalls. */
  drops?: ForeignFirewall
}

/** Runs until the signal. Errors: what makes it impossible to serve at all (no privilege, the socket held by another weftd, no libnftables). */
export async function runDaemon(deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  const { options, log, health, metrics, version, nodeName } = deps
  await using parts = new AsyncDisposableStack()
  parts.use(await lockSingleInstance(options.stateDir, log))
  const core = await openCore(deps, signal, parts)
  const pods = podContext(deps, core)
  parts.use(await keepPods(pods, { options, log, metrics, reconciler: core.reconciler, running: core.running }, signal))
  await leaveWhenDeleted(deps, core, pods, parts)

  const store = parts.use(await openStore({ ...options, environment: deps.environment }, { log, report: health }))
  health.listen((condition, active) => store.tell?.(condition, active))
  const bursts = new AfterBurst()
  const peers = followedPeers(deps, core, bursts)
  const network = new Membership(membershipDeps(deps, core, store, peers))
  if (options.healthzPort !== 0) {
    await serveHttp({ health, metrics, ip: options.healthzIp, port: options.healthzPort, signal })
  }
  const outcomes = new CallHistory(Date.now)
  const control = controlVerbs({
    ...{ version, startedAt: Date.now(), nodeName, store: store.type, health, peers, outcomes },
    ...{
      reconciler: core.reconciler,
      attachments: pods.attachments,
      reserved: () => reserved(pods),
      place: () => core.place
    }
  })
  parts.use(await serve({ path: join(options.stateDir, 'weftd.sock'), cni: cniCalls(pods, outcomes), control, log }))

  const joined = network.join(signal)
  core.running(joined.then(() => store.announce?.()).then(() => bursts.started()))
  const { cniConfDir: directory, cniConfSource: source } = options
  if (directory !== undefined) core.running(joined.then(() => keepConflist({ directory, source, health, log }, signal)))
  const path = { kernel: core.kernel, peers, place: () => core.place, health, log, now: () => performance.now() }
  core.running(joined.then(() => new PathMtu(path).follow(signal)))
  core.running(peers.follow(network.leases(store.watch(signal))))
  await Promise.race([aborted(signal), core.failure])
}

/** At the very end, when pods are served no more and the kernel still answers: a DaemonSet that was deleted leaves a clean node. */
async function leaveWhenDeleted(
  deps: DaemonDeps,
  core: Core,
  pods: PodContext,
  parts: AsyncDisposableStack
): Promise<void> {
  const { options, log, environment } = deps
  const { kubeDaemonset } = options
  if (kubeDaemonset === undefined) return
  const own = parts.use(
    new DaemonSetWatch(kubeDaemonset, await daemonSetEvents(kubeDaemonset, { ...options, environment }, log), log)
  )
  core.running(own.follow(core.signal))
  parts.defer(async () => {
    if (core.signal.aborted && (await own.isDeleted())) await leave(deps, core, pods)
  })
}

/** `weftd clean`: takes all that is ours off this host, where no weftd runs. Errors: DAEMON_RUNNING, and as `runDaemon`. */
export async function cleanNode(deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  await using parts = new AsyncDisposableStack()
  parts.use(await lockSingleInstance(deps.options.stateDir, deps.log))
  const done = new AbortController()
  const core = await openCore(deps, AbortSignal.any([signal, done.signal]), parts)
  // Before the kernel is let go of: its observations end then, and that is no failure.
  parts.defer(() => done.abort())
  const pods = podContext(deps, core)
  await rebuild(pods)
  if (!(await leave(deps, core, pods))) process.exitCode = 1
}

const leave = ({ options, log, identity }: DaemonDeps, core: Core, pods: PodContext): Promise<boolean> =>
  uninstall({
    identity,
    ...{ options, log, reconciler: core.reconciler, firewall: core.firewall },
    subnet: core.place?.node.subnet ?? previousSubnets(options.subnetFile, log),
    pods: pods.attachments.list().length
  })

/** The kernel and the loop that keeps it as desired; resolves when it has been looked at for the first time. */
async function openCore(
  { options, log, health, metrics }: DaemonDeps,
  signal: AbortSignal,
  parts: AsyncDisposableStack
): Promise<Core> {
  const firewall = new Firewall({ iptablesResyncSeconds: options.iptablesResync })
  const wanted = (): readonly string[] => wantedSysctls(core.reconciler)
  const runs = metrics.histogram(
    'weft_kernel_run_seconds',
    'Changes that reach the kernel of this host together, by channel: netlink, removal, sysctl, firewall (nftables).',
    ['channel']
  )
  const took = (channel: string, seconds: number) => runs.observe({ channel }, seconds)
  const kernel = parts.use(await openKernel({ log, nft: firewall, sysctls: wanted, took }))
  const reconciler = new Reconciler({
    kernel,
    log,
    now: () => performance.now(),
    interest: (object) => worthKnowing(object, networksOf(core.place?.conf)),
    ...repairReport(log, metrics, health)
  })
  const { promise: failure, reject } = Promise.withResolvers<never>()
  const running = (work: Promise<unknown>) => void work.catch((error) => signal.aborted || reject(error))
  const core: Core = { signal, firewall, kernel, reconciler, running, failure }
  running(reconciler.run(signal))
  await Promise.race([reconciler.observing, failure])
  return core
}

function followedPeers({ log, health, metrics }: DaemonDeps, { reconciler }: Core, bursts: AfterBurst): Peers {
  const events = metrics.counter(
    'weft_lease_events_total',
    'Events of the lease store, by kind; malformed ones are skipped.',
    ['kind']
  )
  const counted = (kind: string) => events.inc({ kind })
  const peers = new Peers({
    ...{ reconciler, health, log, doubtMs: DOUBT, counted, now: Date.now },
    workedOff: (leases) => bursts.heard(leases)
  })
  metrics.gauge('weft_leases', 'Leases of the network that are understood.', [], (gauge) =>
    gauge.set(peers.leases.size)
  )
  return peers
}

function membershipDeps(
  { options, log, health, nodeName, identity, ipv6 }: DaemonDeps,
  core: Core,
  store: Store,
  peers: Peers
): MembershipDeps {
  const { kernel, reconciler } = core
  const { subnetFile: path, stateDir } = options
  const subnetFile = new SubnetFile({ path, stateDir, health, signal: core.signal })
  const leaseFile = new LeaseFile(leaseFilePath(options.stateDir), log)
  leaseFile.keepFresh(() => health.active().every(({ code }) => !LEASE_DOUBTFUL.has(code)), core.signal)
  const [written, remembered] = [previousSubnets(options.subnetFile, log), leaseFile.read()]
  const { iface: ifaces, ifaceRegex: ifaceRegexes, publicIp, ifaceCanReach: canReach, given } = options
  return {
    ...{ kernel, reconciler, store, peers, health, log, nodeName, identity, ipv6 },
    wish: { ifaces, ifaceRegexes, publicIp, given, ...(canReach && { canReach }) },
    previous: perFamily(written).length > 0 ? written : (remembered?.lease.subnet ?? {}),
    remembered,
    patienceMs: PATIENCE,
    alsoOwn: (placed) => nodeObjects(placed, options, reconciler.observed),
    placed: async (placed) => {
      const isFirst = core.place === undefined
      core.place = placed
      const network = networksOf(placed.conf)
      const { mtu, node } = placed
      subnetFile.write({ network, subnet: node.subnet, mtu, ipMasq: options.ipMasq })
      if (placed.isConfirmed) leaseFile.write(placed)
      if (!isFirst) return
      await followFeatures(core, placed.backend.type, health)
      kernel.recheck('the networks are known')
      if (options.iptablesForwardRules) await forwardThroughOthers(core, network, health, log)
    }
  }
}

async function followFeatures({ kernel, running, signal }: Core, backend: string, health: Health): Promise<void> {
  const always: readonly Feature[] = ['veth', 'bridge', 'nf_tables']
  const wanted = { needed: backend === 'vxlan' ? [...always, 'vxlan' as const] : always, ask: features, health }
  if (await reportMissingFeatures(wanted)) return
  running(untilNoneMissing(wanted, signal).then(() => kernel.recheck('the kernel has what it lacked')))
}

/** Resolves when other programs' chains have been answered for the first time. */
async function forwardThroughOthers(core: Core, networks: PerFamily<Prefix>, health: Health, log: Log): Promise<void> {
  const { promise, resolve: answered } = Promise.withResolvers<void>()
  const views = core.firewall.foreign(core.signal)
  const drops = new ForeignFirewall(networks, { reconciler: core.reconciler, health, log })
  core.drops = drops
  core.running(drops.follow(views, answered))
  await promise
}

/** Settings that somebody wants are read again at each complete check: the kernel does not announce their changes. */
const wantedSysctls = ({ desired }: Reconciler): readonly string[] =>
  [...desired.values()].flatMap((object) => (object.kind === 'sysctl' ? [object.path] : []))

/** Links and addresses for the choice of interface, limits of pods, default routes, and whatever leads into the network. */
function worthKnowing(object: KernelObject, cluster: PerFamily<Prefix>): boolean {
  if (object.kind === 'link' || object.kind === 'address') return true
  if (object.kind === 'qdisc') return object.discipline.type !== 'other'
  if (object.kind !== 'route' || object.table !== 254) return false
  const network = cluster[object.destination.ip.family]
  return object.destination.length === 0 || (network !== undefined && contains(network, object.destination))
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
