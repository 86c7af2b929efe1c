// The daemon's parts in the order in which they need each other: kernel, reconciler, store, network, pods, servers; and their end.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { contains, FAMILIES, type PerFamily, type Prefix } from '../ipam/address.ts'
import { Reservations } from '../ipam/reservations.ts'
import { cniCalls } from './cni-calls.ts'
import type { NetConf } from './config/net-conf.ts'
import { diffAnswer, statusAnswer } from './ctl/answers.ts'
import { ownFirewall } from './firewall/own.ts'
import { answerForeignDrops } from './foreign-drops.ts'
import type { Health } from './health.ts'
import { serveHttp } from './http.ts'
import { flock } from './kernel/flock.ts'
import { openKernel } from './kernel/kernel.ts'
import { Firewall } from './kernel/nftables.ts'
import { openStore } from './lease/registry.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { Network, type Place } from './network.ts'
import type { Options } from './options.ts'
import { Peers } from './peers.ts'
import { Attachments } from './pod/attachments.ts'
import { forwarding } from './pod/objects.ts'
import { forgetVanished, rebuild } from './pod/sandboxes.ts'
import type { PodSurroundings } from './pod/surroundings.ts'
import { Reconciler } from './reconciler.ts'
import { type Control, serve } from './server.ts'
import type { KernelObject } from './state/object.ts'
import { previousSubnets, writeSubnetFile } from './subnet-file.ts'
import { repairTellers } from './telling.ts'

export type DaemonSurroundings = {
  readonly options: Options
  readonly log: Log
  readonly health: Health
  readonly metrics: Metrics
  readonly version: string
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
}

/** Milliseconds that a list from which most leases have vanished must stand before it is believed. */
const DOUBT = 60_000

/** Runs until `stop` fires. Errors: what makes it impossible to serve at all (no privilege, the socket held by another weftd, no libnftables). */
export async function runDaemon(around: DaemonSurroundings, stop: AbortController): Promise<void> {
  const { options, log, health, metrics } = around
  const { signal } = stop
  await using parts = new AsyncDisposableStack()

  const firewall = new Firewall({ iptablesResyncSeconds: options.iptablesResync })
  const reconcilerOf: { reconciler?: Reconciler } = {}
  const kernel = parts.use(
    await openKernel({ log, nft: firewall, sysctls: () => wantedSysctls(reconcilerOf.reconciler) })
  )
  let place: Place | undefined
  const cluster = (): PerFamily<Prefix> => networksOf(place?.conf)
  const reconciler = new Reconciler({
    kernel,
    log,
    now: () => performance.now(),
    interest: (object) => worthKnowing(object, cluster()),
    ...repairTellers(log, metrics, health)
  })
  reconcilerOf.reconciler = reconciler
  const failed = Promise.withResolvers<never>()
  const running = (work: Promise<unknown>) => work.catch((error) => signal.aborted || failed.reject(error))
  running(reconciler.run(signal))
  await Promise.race([reconciler.observing, failed.promise])

  const pods = podSurroundings(around, kernel, reconciler, () => place)
  const attached = await rebuild(pods)
  if (attached > 0) log.info({ pods: attached }, 'pods of an earlier weftd go on')
  reconciler.onObserved(forgetVanished(pods))

  /** Resolves when other programs' chains have been answered for the first time. */
  const forwardThroughOthers = async (networks: PerFamily<Prefix>) => {
    const { promise, resolve: answered } = Promise.withResolvers<void>()
    running(answerForeignDrops(firewall.foreign(signal), networks, { reconciler, health, log, answered }))
    await promise
  }

  const store = parts.use(await openStore(options, { log, report: health }))
  const events = metrics.counter(
    'weft_lease_events_total',
    'Events of the lease store, by kind; malformed ones are skipped.',
    ['kind']
  )
  const peers = new Peers({ reconciler, health, log, doubtMs: DOUBT, counted: (kind) => events.inc({ kind }) })
  metrics.gauge('weft_leases', 'Leases of the network that are understood.', [], (gauge) =>
    gauge.set(peers.leases.size)
  )
  const network = new Network({
    kernel,
    reconciler,
    store,
    peers,
    health,
    log,
    nodeName: around.nodeName,
    identity: around.identity,
    ipv6: around.ipv6,
    wish: {
      ifaces: options.iface,
      ifaceRegexes: options.ifaceRegex,
      publicIp: options.publicIp,
      ...(options.ifaceCanReach && { canReach: options.ifaceCanReach })
    },
    previous: previousSubnets(options.subnetFile, log),
    alsoOwn: (placed) => nodeObjects(placed, options, reconciler),
    placed: async (placed) => {
      const isFirst = place === undefined
      place = placed
      const env = {
        network: networksOf(placed.conf),
        subnet: placed.node.subnet,
        mtu: placed.mtu,
        ipMasq: options.ipMasq
      }
      writeSubnetFile(options.subnetFile, env)
      if (!isFirst) return
      kernel.recheck('the networks are known')
      if (options.iptablesForwardRules) await forwardThroughOthers(cluster())
    }
  })

  if (options.healthzPort !== 0)
    await serveHttp({ health, metrics, ip: options.healthzIp, port: options.healthzPort, signal })
  const startedAt = Date.now()
  const control = new Map<string, Control>([
    ['diff', async () => diffAnswer(reconciler.differences())],
    [
      'status',
      async () =>
        statusAnswer({
          version: around.version,
          startedAt,
          name: around.nodeName,
          store: store.type,
          peers: peers.others,
          pods: pods.attachments.list().length,
          conditions: health.active(),
          ...(place && { backend: place.backend.type, network: place.conf.families, node: place.node })
        })
    ]
  ])
  const cni = cniCalls(pods)
  parts.use(await serve({ path: join(options.stateDir, 'weftd.sock'), cni, control, log }))

  running(network.join(signal))
  running(peers.follow(store.watch(signal)))
  await Promise.race([aborted(signal), failed.promise])
}

const networksOf = (conf: NetConf | undefined): PerFamily<Prefix> =>
  Object.fromEntries(
    FAMILIES.flatMap((family) =>
      conf?.families[family] === undefined ? [] : [[family, conf.families[family].network]]
    )
  )

/** Settings that somebody wants are read again at each complete check: the kernel does not announce their changes. */
const wantedSysctls = (reconciler: Reconciler | undefined): readonly string[] =>
  [...(reconciler?.desired.values() ?? [])].flatMap((object) => (object.kind === 'sysctl' ? [object.path] : []))

/** Links and addresses for the choice of interface, default routes, and whatever leads into the network. */
function worthKnowing(object: KernelObject, cluster: PerFamily<Prefix>): boolean {
  if (object.kind === 'link' || object.kind === 'address') return true
  if (object.kind !== 'route' || object.table !== 254) return false
  const network = cluster[object.destination.ip.family]
  return object.destination.length === 0 || (network !== undefined && contains(network, object.destination))
}

/** What every node has besides its backend's device: its firewall chains and forwarding. */
function nodeObjects({ node, conf }: Place, options: Options, reconciler: Reconciler): readonly KernelObject[] {
  const wishes = {
    ipMasq: options.ipMasq,
    randomFully: !options.ipMasqFullyRandomDisable,
    forwardRules: options.iptablesForwardRules
  }
  const families = FAMILIES.filter((family) => node.subnet[family] !== undefined)
  return [...ownFirewall(node.subnet, networksOf(conf), wishes), ...forwarding(families, reconciler.observed)]
}

function podSurroundings(
  around: DaemonSurroundings,
  kernel: PodSurroundings['kernel'],
  reconciler: Reconciler,
  place: () => Place | undefined
): PodSurroundings {
  const { options, log, health, metrics } = around
  const steps = metrics.histogram(
    'weft_pod_step_seconds',
    'Parts of ADD, CHECK and DEL: queue, sandbox, reserve, host, inside.',
    ['verb', 'step']
  )
  const directories = new Map<string, Reservations>()
  const boot = bootOf()
  return {
    kernel,
    host: reconciler,
    attachments: new Attachments(),
    reservations(dataDir, network) {
      const path = join(dataDir, network)
      const known = directories.get(path) ?? new Reservations(dataDir, network, { lock: flock, boot })
      directories.set(path, known)
      return known
    },
    health,
    place: () => {
      const placed = place()
      return placed && { node: placed.node, mtu: placed.mtu, clusterNetworks: networksOf(placed.conf) }
    },
    defaultMode: options.podMode === 'routed' ? 'routed' : 'bridge',
    rules: () => [],
    log,
    now: () => performance.now(),
    timings: (verb, step, seconds) => steps.observe({ verb, step }, seconds)
  }
}

/** proc(5): the kernel's own id of this boot, and how long ago it began. */
function bootOf(): { readonly id: string; readonly since: number } {
  const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0])
  return { id: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(), since: Date.now() - uptime * 1000 }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
