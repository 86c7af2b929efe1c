// Implements the kernel port (state/kernel.ts) on Linux: puts sockets, observers, deletions, sandboxes and route
// look-up together.
import { existsSync } from 'node:fs'
import type { Log } from '../base/log.ts'
import type { SerialQueue } from '../base/serial-queue.ts'
import type { Kernel, RoutingChange } from '../state/kernel.ts'
import type { TunnelPort } from '../state/tunnel-port.ts'
import { applyChanges, type Channel, type Target } from './apply.ts'
import { Carriers } from './carrier.ts'
import { LinkDeleter } from './delete-links.ts'
import { vlanTrial } from './features.ts'
import { FouPorts } from './fou-ports.ts'
import { routeLookups } from './look-up-routes.ts'
import { openNamespace } from './namespace.ts'
import { Conntrack } from './netlink/conntrack.ts'
import { NETLINK_GENERIC } from './netlink/generic.ts'
import { Lanes } from './netlink/lane.ts'
import { RequestSocket } from './netlink/request-socket.ts'
import type { FirewallPort } from './nftables/port.ts'
import { Senders } from './notification-sender.ts'
import { Observer, type ObserverParts } from './observer.ts'
import { applyOffloads } from './offload.ts'
import { openSandbox } from './sandbox.ts'
import { readSysctl, writeSysctl } from './sysctl.ts'
import { makeTun } from './tun.ts'
import { Wireguard } from './wireguard.ts'

export type KernelOptions = {
  readonly log: Log
  /** Reads and writes nft-* and accept objects; disposed of with the kernel. */
  readonly nft: FirewallPort
  /** Paths below /proc/sys that a dump reads; the kernel announces no changes of them. */
  readonly sysctls?: () => readonly string[]
  /** Devices whose offloads a dump reads: links are listed without them. */
  readonly offloads?: () => readonly string[]
  /** The process that serves a TUN device. */
  readonly tunnel?: TunnelPort
  /** The executable of wireguard-go, for a kernel without WireGuard. */
  readonly wireguardGo?: string | undefined
  /** Called with the seconds that each run of changes on the host took. */
  readonly took?: (channel: Channel, seconds: number) => void
  readonly senders?: Senders
  /** Receive buffer for notifications in bytes. */
  readonly receiveBytes?: number
}

/**
 * Opens the network namespace of this process. When it resolves, an interrupted deletion of links has been finished.
 * Errors: CallFailed, without the privileges.
 */
export async function openKernel(options: KernelOptions): Promise<Kernel> {
  const { log, nft, tunnel, senders = new Senders() } = options
  using opened = new DisposableStack()
  const lanes = new Lanes()
  const openSocket = (lane: SerialQueue) => opened.use(new RequestSocket(lane))
  const requests = openSocket(lanes.ordinary)
  // A dump of a large host must not delay a pod's requests.
  const dumps = openSocket(lanes.ordinary)
  const [first, ...others] = lanes.removals
  const removals = [openSocket(first), ...others.map(openSocket)] as const
  for (const socket of [requests, dumps, ...removals]) senders.own.add(socket.port)
  const generic = opened.use(new RequestSocket(lanes.ordinary, NETLINK_GENERIC))
  const wireguard = new Wireguard({ socket: generic, executable: options.wireguardGo, now: Date.now })
  const conntrack = opened.use(new Conntrack(log, lanes.ordinary))
  const fouPorts = opened.use(new FouPorts(lanes.ordinary))
  const deleter = new LinkDeleter(removals, log)
  const carriers = new Carriers(requests)
  await deleter.finishInterrupted()

  const target: Target = {
    socket: requests,
    remove: (link) => deleter.remove(link),
    exists: deviceExists,
    // The caller has opened the namespace before, where weftd's own was refused if it must not be.
    openNamespace: (path) => openNamespace(path, true),
    ...{ readSysctl, writeSysctls: (objects) => objects.map(writeSysctl) },
    ...{ offloads: applyOffloads, makeTun, wireguard, fou: (changes) => fouPorts.apply(changes) },
    ...(tunnel && { tunnel: (changes) => tunnel.apply(changes) }),
    firewall: (changes) => nft.apply(changes),
    forgetFlows: (flows) => conntrack.forget(flows),
    took: options.took
  }
  const listeners = new Set<(change: RoutingChange) => void>()
  const parts: ObserverParts = {
    routing: (change) => listeners.forEach((listener) => void listener(change)),
    ...{ socket: dumps, wireguard, firewall: nft, senders, log },
    ...{ sysctls: options.sysctls ?? none, offloads: options.offloads ?? none, receiveBytes: options.receiveBytes },
    tunnel: () => tunnel?.read() ?? [],
    fouPorts: () => fouPorts.read()
  }
  const observers = new Set<Observer>()
  const sockets = opened.move()
  return {
    async *observe(interest, signal, desired) {
      using observer = new Observer(parts, interest, desired)
      observers.add(observer)
      try {
        yield* observer.observations(signal)
      } finally {
        observers.delete(observer)
      }
    },
    recheck: (why) => observers.forEach((observer) => void observer.wantDump(why)),
    apply: (changes) => applyChanges(changes, target),
    removeTables: () => nft.removeTables(),
    removeOtherChains: (names) => nft.removeOtherChains(names),
    sandbox: async (path, mayBeOwn = false) => openSandbox(path, { log, lanes, host: requests }, mayBeOwn),
    runs: (device, milliseconds) => carriers.runs(device, milliseconds),
    ...deviceLookups(requests),
    filtersVlans: vlanTrial(),
    ...routeLookups(requests),
    onRouting: (listener) => void listeners.add(listener),
    async [Symbol.asyncDispose]() {
      await deleter.idle()
      sockets.dispose()
      await nft[Symbol.asyncDispose]()
    }
  }
}

const none = (): readonly string[] => []

const deviceLookups = (socket: RequestSocket): Pick<Kernel, 'exists' | 'indexOf'> => ({
  exists: deviceExists,
  indexOf: (device) => (deviceExists(device) ? socket.indexOf(device) : undefined)
})

/** Every device has a directory there; a look-up by name would make the kernel try to load a module of that name. */
const deviceExists = (device: string): boolean => existsSync(`/proc/sys/net/ipv4/conf/${device}`)
