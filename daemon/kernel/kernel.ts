// The kernel port on real Linux: observe, apply, sandboxes, route look-up. This file only puts the room's parts together.
import { existsSync } from 'node:fs'
import { formatIp, type Ip } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import type { Kernel } from '../state/kernel.ts'
import { applyChanges, type Channel, type Target } from './apply.ts'
import { Carriers } from './carrier.ts'
import { LinkDeleter } from './delete-links.ts'
import { openNamespace } from './namespace.ts'
import { Conntrack } from './netlink/conntrack.ts'
import { decodeRoute } from './netlink/decode.ts'
import { lookUpRoute } from './netlink/encode.ts'
import { KernelError } from './netlink/error.ts'
import { Lanes } from './netlink/lane.ts'
import { RequestSocket } from './netlink/requests.ts'
import type { FirewallPort } from './nftables/port.ts'
import { Observer, type ObserverParts } from './observer.ts'
import { openSandbox } from './sandbox.ts'
import { Senders } from './sender.ts'
import { writeSysctl } from './sysctl.ts'

export type KernelOptions = {
  readonly log: Log
  /** Reads and writes nft-* and accept objects; disposed of with the kernel. */
  readonly nft: FirewallPort
  /** Paths below /proc/sys that a dump reads; the kernel announces no changes of them. */
  readonly sysctls?: () => readonly string[]
  /** Told how many seconds each run of changes on the host took. */
  readonly took?: (channel: Channel, seconds: number) => void
  readonly culprits?: Senders
  /** Receive buffer for notifications in bytes. */
  readonly receiveBytes?: number
}

/** Opens the network namespace of this process. Links that an earlier run had begun to delete are gone when it resolves. Errors: CallFailed, for want of privilege. */
export async function openKernel(options: KernelOptions): Promise<Kernel> {
  const { log, nft, culprits = new Senders() } = options
  using opened = new DisposableStack()
  const lanes = new Lanes()
  const requests = opened.use(new RequestSocket(lanes.ordinary))
  // A dump of a large host must not stand before a pod's requests.
  const dumps = opened.use(new RequestSocket(lanes.ordinary))
  const [first, ...others] = lanes.removals
  const removals = [
    opened.use(new RequestSocket(first)),
    ...others.map((lane) => opened.use(new RequestSocket(lane)))
  ] as const
  for (const socket of [requests, dumps, ...removals]) culprits.own.add(socket.port)
  const conntrack = opened.use(new Conntrack(log, lanes.ordinary))
  const remover = new LinkDeleter(removals, log)
  const carriers = new Carriers(requests)
  await remover.finishOldWork()

  const target: Target = {
    socket: requests,
    remove: (link) => remover.remove(link),
    // Every device has a directory there; to ask the kernel by name would make it look for a module of that name.
    exists: (device) => existsSync(`/proc/sys/net/ipv4/conf/${device}`),
    // Whoever asks for a link there has opened the namespace before, and been refused if it must not be ours.
    openNamespace: (path) => openNamespace(path, true),
    writeSysctls: (objects) => objects.map(writeSysctl),
    firewall: (changes) => nft.apply(changes),
    forgetFlows: (flows) => conntrack.forget(flows),
    took: options.took
  }
  const parts: ObserverParts = {
    socket: dumps,
    firewall: nft,
    culprits,
    log,
    sysctls: options.sysctls ?? (() => []),
    receiveBytes: options.receiveBytes
  }
  const observers = new Set<Observer>()
  const sockets = opened.move()
  return {
    async *observe(interest, signal, held) {
      using observer = new Observer(parts, interest, held)
      observers.add(observer)
      try {
        yield* observer.observations(signal)
      } finally {
        observers.delete(observer)
      }
    },
    recheck(why) {
      for (const observer of observers) observer.wantDump(why)
    },
    apply: (changes) => applyChanges(changes, target),
    removeTables: () => nft.removeTables(),
    sandbox: async (path, mayBeOwn = false) => openSandbox(path, { log, lanes, host: requests }, mayBeOwn),
    runs: (device, milliseconds) => carriers.runs(device, milliseconds),
    routeTo: (ip) => routeTo(requests, ip),
    async [Symbol.asyncDispose]() {
      await remover.idle()
      sockets.dispose()
      await nft[Symbol.asyncDispose]()
    }
  }
}

const unreachable = new Set(['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL'])

async function routeTo(socket: RequestSocket, ip: Ip): ReturnType<Kernel['routeTo']> {
  try {
    const route = decodeRoute(
      await socket.ask(lookUpRoute(ip), `the route to ${formatIp(ip)}`),
      (index) => socket.nameOf(index),
      true
    )
    if (route?.device === undefined) return undefined
    const { device, source, gateway, mtu } = route
    return {
      device,
      ...(source !== undefined && { source }),
      ...(gateway !== undefined && { gateway }),
      ...(mtu !== undefined && { mtu })
    }
  } catch (error) {
    // An unreachable, prohibit or blackhole route answers with an error too.
    if (error instanceof KernelError && unreachable.has(error.errnoName)) return undefined
    throw error
  }
}
