// Puts the daemon's parts together in the order of their dependencies: kernel, reconciler, pods, store, peers,
// membership, servers; and ends them.
import { join } from 'node:path'
import { DEFAULT_ADMIN_CHAIN, DEFAULT_BRIDGE } from '../plugins/attachment.ts'
import { controlVerbs } from './api/control.ts'
import { serve } from './api/server.ts'
import { peerSaid } from './api/way-answers.ts'
import { BACKENDS, type Registry, registry } from './backend/registry.ts'
import type { CompileGo } from './base/go-regexp.ts'
import type { Log } from './base/log.ts'
import { writtenAs } from './cli/flag-parser.ts'
import type { Options } from './cli/flag-table.ts'
import { CallHistory } from './cni/call-history.ts'
import { cniCalls } from './cni/calls.ts'
import type { Health } from './health/health.ts'
import { serveHttp } from './health/http.ts'
import type { Metrics } from './health/metrics.ts'
import { lacking, missingFeatures } from './kernel/features.ts'
import { openInspection } from './kernel/inspect.ts'
import { openKernel } from './kernel/kernel.ts'
import { Firewall } from './kernel/nftables/firewall.ts'
import { DaemonSetWatch, daemonSetEvents } from './kube/daemonset.ts'
import { leaseKey } from './lease/lease.ts'
import type { Store } from './lease/store.ts'
import { conflistRecord, keepConflist } from './lifecycle/conflist-file.ts'
import { reportFlanneld } from './lifecycle/flanneld.ts'
import { withPrivileges } from './lifecycle/privileges.ts'
import { ServiceManager } from './lifecycle/service-manager.ts'
import { lockSingleInstance } from './lifecycle/single-instance.ts'
import { uninstall } from './lifecycle/uninstall.ts'
import { BackendFacts } from './node/backend-facts.ts'
import { ForeignFirewall } from './node/foreign-firewall.ts'
import { watchedSysctls } from './node/host-checks.ts'
import { isOfInterest } from './node/interest.ts'
import { LeaseFile, leaseFilePath } from './node/lease-file.ts'
import { Membership } from './node/membership.ts'
import { NodeFiles } from './node/node-files.ts'
import { nodeObjects } from './node/node-objects.ts'
import { networksOf, type Place } from './node/place.ts'
import { followFeatures } from './node/required-features.ts'
import { previousSubnets } from './node/subnet-file.ts'
import { Peers } from './peers/peers.ts'
import type { PodContext } from './pod/context.ts'
import { keepPods } from './pod/recovery/keep-pods.ts'
import { rebuild, reserved } from './pod/recovery/rebuild.ts'
import { podContext, useHealthPort, useTunnelPorts } from './pod-context.ts'
import { openProbes, type Probes } from './probes.ts'
import { wantedOffloads, wantedSysctls } from './reconcile/desired.ts'
import { RecentChanges } from './reconcile/recent-changes.ts'
import { Reconciler } from './reconcile/reconciler.ts'
import { repairReport } from './reconcile/repair-report.ts'
import type { Inspection } from './state/inspection.ts'
import type { Kernel } from './state/kernel.ts'
import { openStore } from './stores/registry.ts'
import { openProxyClient } from './udp/client.ts'
import { followWays, type WayDeps } from './underlay/follow-way.ts'
import { RouteWatch } from './underlay/route-watch.ts'
import { ShadowedRoutes } from './underlay/shadowed-routes.ts'

export type DaemonDeps = {
  readonly options: Options
  readonly log: Log
  readonly health: Health
  readonly metrics: Metrics
  readonly version: string
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
  /** Compiles the patterns of --iface-regex, each of which is valid. */
  readonly compile: CompileGo
  /** The environment's variables. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** Milliseconds for which most leases must be missing from the store's list before that is believed. */
const DOUBT = 60_000
/** Milliseconds that the store has for its first answer before we begin with the lease of an earlier weftd. */
const PATIENCE = 2_000

/** What the other parts depend on. `place` is set once this node holds a subnet. */
type Core = {
  readonly signal: AbortSignal
  readonly firewall: Firewall
  readonly kernel: Kernel
  readonly reconciler: Reconciler
  readonly changes: RecentChanges
  readonly backends: Registry
  readonly inspection: Inspection
  /** Work that lasts as long as the daemon: if it fails, the daemon ends. */
  readonly running: (work: Promise<unknown>) => void
  readonly failure: Promise<never>
  place?: Place
  /** Set once the networks are known. */
  drops?: ForeignFirewall
}

/**
 * Runs until the signal. Errors: what makes it impossible to serve at all (no privilege, the socket held by another
 * weftd, no libnftables).
 */
export async function runDaemon(deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  const { options, log, health, metrics, version, nodeName } = deps
  await using parts = new AsyncDisposableStack()
  parts.use(await lockSingleInstance(options.stateDir, log))
  const core = await withPrivileges(() => openCore(deps, signal, parts))
  core.running(reportFlanneld(health, signal))
  const pods = podContext(deps, core)
  parts.use(await keepPods(pods, { options, log, metrics, reconciler: core.reconciler, running: core.running }, signal))
  await uninstallWhenDeleted(deps, core, pods, parts)

  const lastConfiguration = new LeaseFile(leaseFilePath(options.stateDir), log).lastConfiguration()
  const storeDeps = { log, report: health, lastConfiguration }
  const store = parts.use(await openStore({ ...options, environment: deps.environment }, storeDeps))
  health.listen((condition, active) => store.onCondition?.(condition, active))
  const service = new ServiceManager({ address: deps.environment.NOTIFY_SOCKET, health, log })
  signal.addEventListener('abort', () => service.stopping(), { once: true })
  const peers = openPeers(deps, core, store.type)
  const membership = openMembership(deps, core, store, { peers, pods })
  const place = () => core.place
  if (options.healthzPort !== 0) {
    useHealthPort(pods, options)
    await serveHttp({ health, metrics, ip: options.healthzIp, port: options.healthzPort, signal })
  }
  const outcomes = new CallHistory(Date.now)
  const shadowed = new ShadowedRoutes({ ...core, peers, place, bridge: DEFAULT_BRIDGE, health, log })
  const probes = parts.use(
    openProbes({ ...core, ...deps, peers, place, store, plainDrop: () => core.drops?.plainDrop })
  )
  const control = controlVerbs({
    ...{ version, startedAt: Date.now(), nodeName, store: store.type, health, peers, outcomes, place },
    ...{ reconciler: core.reconciler, changes: core.changes, attachments: pods.attachments },
    reserved: () => reserved(pods),
    leaseEnds: () => store.leaseEnds?.(),
    shadowed: (key) => shadowed.of(key),
    probes,
    ways: (ways) => followWays(ways, wayDeps(core, { health, peers, probes }))
  })
  parts.use(await serve({ path: join(options.stateDir, 'weftd.sock'), cni: cniCalls(pods, outcomes), control, log }))

  const joined = membership.join(signal)
  core.running(joined.then(() => service.joined()))
  core.running(joined.then(() => store.announce?.()))
  const { cniConfDir: directory, cniConfSource: source } = options
  const record = conflistRecord(options.stateDir)
  if (directory !== undefined)
    core.running(joined.then(() => keepConflist({ directory, source, record, health, log }, signal)))
  core.running(joined.then(() => probes.pathMtu.follow(signal)))
  core.running(joined.then(() => probes.follow(signal)))
  const routes = new RouteWatch({ ...core, peers, shadowed, place, now: () => performance.now() })
  core.running(joined.then(() => routes.follow(signal)))
  core.running(peers.follow(membership.leases(store.watch(signal))))
  await Promise.race([aborted(signal), core.failure])
}

/** `weftd clean`: removes Weft from this host, where no weftd runs. Errors: DAEMON_RUNNING, and as `runDaemon`. */
export async function cleanNode(deps: DaemonDeps, signal: AbortSignal): Promise<void> {
  await using parts = new AsyncDisposableStack()
  parts.use(await lockSingleInstance(deps.options.stateDir, deps.log))
  const done = new AbortController()
  const core = await withPrivileges(() => openCore(deps, AbortSignal.any([signal, done.signal]), parts))
  // Before the kernel is closed: its observations end then, and that is no failure.
  parts.defer(() => done.abort())
  const pods = podContext(deps, core)
  await rebuild(pods)
  if (!(await uninstallFrom(deps, core, pods))) process.exitCode = 1
}

/** The kernel, and the loop that keeps it as desired; resolves after the first complete dump. */
async function openCore(
  { options, log, health, metrics, version }: DaemonDeps,
  signal: AbortSignal,
  parts: AsyncDisposableStack
): Promise<Core> {
  const tunnel = await openProxyClient({ options, log, health, version }, signal)
  const firewall = new Firewall({ iptablesResyncSeconds: options.iptablesResync })
  const runs = metrics.histogram(
    'weft_kernel_run_seconds',
    'Duration of a batch of changes to the kernel of this host, by channel: netlink, removal, sysctl, offload (ethtool), fou (generic netlink), firewall (nftables).',
    ['channel']
  )
  const took = (channel: string, seconds: number) => runs.observe({ channel }, seconds)
  const backends = registry(BACKENDS)
  const watched = new Set<string>()
  const sysctls = (): readonly string[] => {
    watched.clear()
    for (const path of watchedSysctls(core.reconciler.observed, core.place?.node)) watched.add(path)
    return [...wantedSysctls(core.reconciler.desired), ...watched]
  }
  const offloads = (): readonly string[] => wantedOffloads(core.reconciler.desired)
  const kernel = parts.use(await openKernel({ log, nft: firewall, sysctls, offloads, tunnel, took }))
  const changes = new RecentChanges(Date.now)
  const reconciler = new Reconciler({
    ...{ kernel, log, now: () => performance.now(), recognises: backends.recognises },
    interest: (object) =>
      object.kind === 'sysctl' ? watched.has(object.path) : isOfInterest(object, networksOf(core.place?.conf)),
    ...repairReport(log, metrics, health, changes)
  })
  const { promise: failure, reject } = Promise.withResolvers<never>()
  const running = (work: Promise<unknown>) => void work.catch((error) => signal.aborted || reject(error))
  const inspection = parts.use(await openInspection(signal))
  const core: Core = { signal, firewall, kernel, reconciler, changes, backends, inspection, running, failure }
  running(reconciler.run(signal))
  running(tunnel.follow())
  // The first dump may fail again and again, and a signal must end that, too.
  await Promise.race([reconciler.observing, failure, aborted(signal)])
  signal.throwIfAborted()
  return core
}

function openPeers(
  { options, log, health, metrics }: DaemonDeps,
  { kernel, reconciler, backends }: Core,
  store: string
): Peers {
  const events = metrics.counter(
    'weft_lease_events_total',
    'Events from the lease store, by kind; malformed leases are skipped.',
    ['kind']
  )
  const peers = new Peers({
    ...{ kernel, reconciler, health, log, claims: backends.claims, recognises: backends.recognises, store },
    ...{ doubtMs: DOUBT, now: Date.now, bridge: DEFAULT_BRIDGE },
    leaseName: (key) => (store === 'etcd' ? `${options.etcdPrefix.replace(/\/+$/, '')}/subnets/${key}` : key),
    counted: (kind) => events.inc({ kind })
  })
  metrics.gauge('weft_leases', 'Valid leases of the network.', [], (gauge) => gauge.set(peers.leases.size))
  return peers
}

function openMembership(
  deps: DaemonDeps,
  core: Core,
  store: Store,
  { peers, pods }: { readonly peers: Peers; readonly pods: PodContext }
): Membership {
  const { options, log, health, nodeName, identity, ipv6, compile } = deps
  const { kernel, reconciler, backends, signal } = core
  const { iface: ifaces, ifaceRegex: ifaceRegexes, publicIp, ifaceCanReach: canReach, setBy } = options
  const { ipMasq, subnetFile, stateDir } = options
  const files = new NodeFiles({ subnetFile, stateDir, ipMasq, health, log, signal })
  const objectOptions = {
    ...{ ipMasq, randomFully: !options.ipMasqFullyRandomDisable },
    bridge: DEFAULT_BRIDGE,
    ...{ forwardRules: options.iptablesForwardRules, blackholeRoute: options.ipBlackholeRoute }
  }
  return new Membership({
    ...{ kernel, reconciler, store, peers, health, log, nodeName, identity, ipv6, backends, bridge: DEFAULT_BRIDGE },
    backendFacts: new BackendFacts({ lacking, needs: backends.needs, log, now: () => performance.now() }),
    interfaceOptions: {
      ...{ ifaces, ifaceRegexes, compile, publicIp, ...(canReach && { canReach }) },
      flagName: (flag) => writtenAs(setBy, flag)
    },
    ...{ previous: files.previous, remembered: files.remembered, patienceMs: PATIENCE },
    usePorts: (ports, ips) => useTunnelPorts(pods, ports, ips),
    alsoOwn: (place) => nodeObjects(place, objectOptions, reconciler.observed),
    placed: async (place) => {
      const isFirst = core.place === undefined
      core.place = place
      files.write(place)
      if (isFirst) await startWithPlace(deps, core, place)
    }
  })
}

/** What needs the configuration or the lease, at the first time that they are known. */
async function startWithPlace({ options, health, log }: DaemonDeps, core: Core, place: Place): Promise<void> {
  const { kernel, firewall, reconciler, running, signal } = core
  const features = { missing: () => missingFeatures(place.backend.features), health }
  await followFeatures(features, () => kernel.recheck('the missing kernel features are there'), { running, signal })
  kernel.recheck('the networks are known')
  const judgeBy = firewall.judgeBy.bind(firewall)
  const accepts = options.iptablesForwardRules
  const plainDevice = () => (core.place?.backend.plain === undefined ? undefined : core.place.node.device)
  const deps = { reconciler, health, log, judgeBy, adminChain: DEFAULT_ADMIN_CHAIN, accepts, plainDevice }
  core.drops = new ForeignFirewall(networksOf(place.conf), deps)
  running(core.drops.follow(firewall.foreign(signal)))
  await core.drops.ready
}

/**
 * At the very end, when no pods are served any more and the kernel is still open: deleting the DaemonSet leaves a clean
 * node.
 */
async function uninstallWhenDeleted(
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
    if (core.signal.aborted && (await own.isDeleted())) await uninstallFrom(deps, core, pods)
  })
}

const uninstallFrom = ({ options, log, identity }: DaemonDeps, core: Core, pods: PodContext): Promise<boolean> =>
  uninstall({
    secretFiles: core.backends.secretFiles,
    ...{ identity, options, log, reconciler: core.reconciler },
    subnet: core.place?.node.subnet ?? previousSubnets(options.subnetFile, log),
    pods: pods.attachments.list().length
  })

type Known = { readonly health: Health; readonly peers: Peers; readonly probes: Probes }

/** Probes and reports are those that exist already: nothing is probed for an answer. */
function wayDeps({ inspection, reconciler, place }: Core, { health, peers, probes }: Known): WayDeps {
  const own = place?.node
  // For all ways of one question: there may be thousands, and the store may be slow.
  let reports: ReturnType<Probes['reports']> | undefined
  return {
    ...{ inspection, reconciler, health, place: () => place },
    probes: (key) => {
      const lease = peers.leases.get(key)
      return lease && probes.views.of(key, lease)
    },
    peerSaid: async (key) => {
      reports ??= probes.reports()
      return own && peerSaid(await reports, key, leaseKey(own))
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
