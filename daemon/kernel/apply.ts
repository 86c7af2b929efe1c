// Applies changes with as few system calls as their order allows: consecutive changes of one channel are a run, and a
// run's messages one send.
import { closeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { toError } from '../base/error.ts'
import { errnoName, errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import { type StaleFlows, staleFlows } from '../state/host-port.ts'
import type { Outcome } from '../state/kernel.ts'
import type { Link, Sysctl } from '../state/object.ts'
import { textOf } from '../state/text.ts'
import type { Resolve } from './netlink/encode.ts'
import { KernelError, refused } from './netlink/error.ts'
import type { Failure, RequestSocket } from './netlink/request-socket.ts'
import { type Requests, requestsOf } from './requests.ts'
import type { Wireguard } from './wireguard.ts'
import { applyStarted } from './wireguard-go.ts'

/** One network namespace, as far as changes go. */
export type Target = {
  readonly socket: RequestSocket
  /** Deletes a link; returns the error. */
  readonly remove: (link: Link) => Promise<Error | undefined>
  /** Whether a device of this name exists; absent where that is expensive to know. */
  readonly exists?: (device: string) => boolean
  /** Opens the namespace at a path; the descriptor is closed after the send. */
  readonly openNamespace: (path: string) => number
  /** Reads a sysctl before it is written; absent inside pods, whose settings nobody else changes. */
  readonly readSysctl?: (path: string) => Sysctl | undefined
  /** Writes sysctls, all in one entry into the namespace. */
  readonly writeSysctls: (objects: readonly Sysctl[]) => readonly (Error | undefined)[]
  /** Sets offloads of devices; absent inside pods. */
  readonly offloads?: (changes: readonly Change[]) => Promise<readonly Outcome[]>
  /** Makes the device of a link, if rtnetlink can't; absent inside pods. */
  readonly makeTun?: (change: Change) => void
  /** Tells the process that serves a TUN device; absent inside pods. */
  readonly tunnel?: (changes: readonly Change[]) => Promise<readonly Outcome[]>
  /** Adds and deletes FOU ports; absent inside pods. */
  readonly fou?: (changes: readonly Change[]) => Promise<readonly Outcome[]>
  /** wg-*; absent inside pods. */
  readonly wireguard?: Pick<Wireguard, 'apply' | 'isUserspace' | 'start'>
  /** nft-*, accept. */
  readonly firewall: (changes: readonly Change[]) => Promise<readonly Outcome[]>
  /** Called with the seconds that each run of changes took. */
  readonly took?: ((channel: Channel, seconds: number) => void) | undefined
  /** Deletes conntrack entries; absent where there is no firewall. */
  readonly forgetFlows?: (flows: readonly StaleFlows[]) => Promise<void>
}

/**
 * The interface of a run: rtnetlink; deletion of links; files below /proc/sys; ethtool; generic netlink; the process of
 * a TUN device; nftables and iptables.
 */
export type Channel = 'netlink' | 'removal' | 'sysctl' | 'offload' | 'fou' | 'wireguard' | 'tunnel' | 'firewall'

function channelOf(change: Change): Channel {
  switch (change.object.kind) {
    case 'link':
      return change.do === 'remove' ? 'removal' : 'netlink'
    case 'address':
    case 'route':
    case 'neighbour':
    case 'proxy':
    case 'fdb':
    case 'qdisc':
    case 'vlans':
      return 'netlink'
    case 'sysctl':
      return 'sysctl'
    case 'offload':
    case 'fou':
      return change.object.kind
    case 'tunnel-socket':
    case 'tunnel-peer':
      return 'tunnel'
    case 'wg-device':
    case 'wg-peer':
      return 'wireguard'
    case 'nft-chain':
    case 'nft-set':
    case 'nft-element':
    case 'iptables-chain':
    case 'accept':
    case 'admin-call':
      return 'firewall'
  }
}

/**
 * Applies changes in their order; one outcome each, in that order. Never throws for a change. If all are removals,
 * nftables and the links are independent, and each blocks its caller for locks of its own: a pod's host ports are
 * removed while its link is.
 */
export async function applyChanges(changes: readonly Change[], target: Target): Promise<readonly Outcome[]> {
  const rules = changes.filter((change) => channelOf(change) === 'firewall')
  if (rules.length === 0 || rules.length === changes.length || changes.some((change) => change.do === 'put'))
    return applyInOrder(changes, target)
  const others = changes.filter((change) => channelOf(change) !== 'firewall')
  // nftables' part runs on this thread: one turn later, when the threads of the links have started.
  const beside = [applyInOrder(others, target), turn().then(() => applyInOrder(rules, target))]
  const outcomes = new Map((await Promise.all(beside)).flat().map((outcome) => [outcome.change, outcome]))
  return changes.flatMap((change) => outcomes.get(change) ?? [])
}

async function applyInOrder(changes: readonly Change[], target: Target): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = []
  for (let from = 0, to = 0; from < changes.length; from = to) {
    const first = changes[from]
    if (first === undefined) break
    const channel = channelOf(first)
    while (to < changes.length && channelOf(changes[to] ?? first) === channel) to++
    const begun = performance.now()
    outcomes.push(...(await applyRun(channel, changes.slice(from, to), target)))
    target.took?.(channel, (performance.now() - begun) / 1000)
  }
  return outcomes
}

const outcome = (change: Change, error: Error | undefined): Outcome =>
  error === undefined ? { change } : { change, error }

async function applyRun(channel: Channel, changes: readonly Change[], target: Target): Promise<readonly Outcome[]> {
  switch (channel) {
    case 'netlink':
      return applyStarted(changes, target.wireguard, (rest) => new NetlinkRun(target).apply(rest))
    case 'removal':
      return Promise.all(changes.map(async (change) => outcome(change, await target.remove(change.object as Link))))
    case 'sysctl':
      return applySysctls(changes, target)
    case 'offload':
      return target.offloads?.(changes) ?? changes.map((change) => outcome(change, new Error('no offloads here')))
    case 'tunnel':
      return target.tunnel?.(changes) ?? changes.map((change) => outcome(change, new Error('no tunnels here')))
    case 'fou':
      return target.fou?.(changes) ?? changes.map((change) => outcome(change, new Error('no FOU ports here')))
    case 'wireguard':
      return (
        target.wireguard?.apply(changes) ?? changes.map((change) => outcome(change, new Error('no WireGuard here')))
      )
    case 'firewall': {
      const outcomes = await target.firewall(changes)
      await target.forgetFlows?.(outcomes.flatMap(({ change, error }) => (error ? [] : staleFlows(change))))
      return outcomes
    }
  }
}

/** The index of a device that a pending message creates is not known before that message has been sent. */
class NotCreatedYet extends Error {}

type Planned = Requests & { readonly at: number; readonly change: Change }

/** Changes that are encoded and sent together. */
const BATCH = 500

/** A run of rtnetlink requests. It is one send unless an object names a device that the same run creates. */
class NetlinkRun {
  readonly #target: Target
  readonly #indexes = new Map<string, number>()
  readonly #namespaces = new Map<string, number>()
  readonly #creating = new Set<string>()
  readonly #resolve: Resolve
  #planned: Planned[] = []
  readonly #errors = new Map<number, Error>()

  constructor(target: Target) {
    this.#target = target
    this.#resolve = { index: (device) => this.#index(device), netns: (path) => this.#namespace(path) }
  }

  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    try {
      for (const [at, change] of changes.entries()) await this.#plan(at, change)
      while (this.#planned.length > 0) await this.#send()
      return changes.map((change, at) => outcome(change, this.#errors.get(at)))
    } finally {
      for (const fd of this.#namespaces.values()) closeSync(fd)
    }
  }

  async #plan(at: number, change: Change): Promise<void> {
    try {
      this.#target.makeTun?.(change)
      const planned: Planned = { at, change, ...requestsOf(change, this.#resolve) }
      this.#planned.push(this.#inOneSend(planned))
      if (planned.creates !== undefined) this.#creating.add(planned.creates)
      // Encoding thousands of objects at once would block the event loop.
      if (this.#planned.length >= BATCH) await this.#send()
    } catch (error) {
      if (error instanceof NotCreatedYet) {
        await this.#send()
        return this.#plan(at, change)
      }
      if (!(error instanceof UnknownDevice)) {
        this.#errors.set(at, toError(error))
      } else if (change.do === 'put') this.#errors.set(at, error.about(change))
      // The kernel has removed a deleted device's objects with it: nothing to do.
    }
  }

  /**
   * The second message must not change another link that already had the name. When there is none the two can share a
   * send: if the creation fails, the second finds no link.
   */
  #inOneSend(planned: Planned): Planned {
    const { creates, afterwards, messages } = planned
    if (creates === undefined || afterwards === undefined || this.#target.exists?.(creates) !== false) return planned
    return { ...planned, messages: [...messages, afterwards], afterwards: undefined }
  }

  #index(device: string): number {
    if (this.#creating.has(device)) throw new NotCreatedYet()
    const index = this.#indexes.get(device) ?? this.#target.socket.indexOf(device)
    if (index === undefined) throw new UnknownDevice(device)
    this.#indexes.set(device, index)
    return index
  }

  #namespace(path: string): number {
    const fd = this.#namespaces.get(path) ?? this.#target.openNamespace(path)
    this.#namespaces.set(path, fd)
    return fd
  }

  async #send(): Promise<void> {
    const planned = this.#planned
    this.#planned = []
    this.#creating.clear()
    const failures = await this.#target.socket.send(planned.flatMap(({ messages }) => messages))
    let from = 0
    for (const { at, change, messages, afterwards, mayFail = 0 } of planned) {
      const error = errorOf(change, failures.slice(from + mayFail, from + messages.length))
      from += messages.length
      if (error !== undefined) this.#errors.set(at, error)
      else if (afterwards !== undefined) this.#planned.push({ at, change, messages: [afterwards] })
    }
  }
}

/**
 * A sysctl can't be removed: one that is no longer desired keeps its value. One that has the value is not written: for
 * some even that has effects (IPv6 forwarding forgets routes from router advertisements).
 */
function applySysctls(changes: readonly Change[], target: Target): readonly Outcome[] {
  const { readSysctl } = target
  const puts = changes.filter((change) => change.do === 'put')
  if (readSysctl === undefined) {
    const errors = target.writeSysctls(puts.map((change) => change.object as Sysctl))
    return changes.map((change) => outcome(change, errors[puts.indexOf(change)]))
  }
  return changes.map((change): Outcome => {
    if (change.do === 'remove') return { change }
    const object = change.object as Sysctl
    // Right before it is written: an earlier one of these may have changed it (ip_forward sets all devices').
    const instead = valueNow(readSysctl, object.path)
    if (instead?.value === object.value) return { change, unchanged: true }
    const [error] = target.writeSysctls([object])
    return outcome(instead === undefined ? change : { do: 'put', object, instead }, error)
  })
}

/** `undefined` also where it can't be read: writing it says why. */
function valueNow(read: (path: string) => Sysctl | undefined, path: string): Sysctl | undefined {
  try {
    return read(path)
  } catch {
    return undefined
  }
}

class UnknownDevice extends Error {
  readonly device: string

  constructor(device: string) {
    super(`no device ${device}`)
    this.device = device
  }

  about(change: Change): KernelError {
    return new KernelError({
      operation: change.do === 'put' ? 'add' : 'remove',
      object: textOf(change.object),
      errno: errnoNumber('ENODEV'),
      sentence: `there is no device ${this.device}`
    })
  }
}

/** Errors of a removal that mean that there is no such object. */
const goneAlready = new Set(['ENODEV', 'ENOENT', 'ESRCH', 'EADDRNOTAVAIL'])

function errorOf(change: Change, failures: readonly Failure[]): Error | undefined {
  const failure = failures.find((one) => one !== undefined)
  // The kernel has added the route with its address meanwhile.
  const isThere = change.object.kind === 'route' && change.object.withAddress !== undefined
  if (isThere && failure !== undefined && errnoName(failure.errno) === 'EEXIST') return undefined
  if (failure === undefined || (change.do === 'remove' && goneAlready.has(errnoName(failure.errno)))) return undefined
  const operation = change.do === 'remove' ? 'remove' : change.instead === undefined ? 'add' : 'change'
  return refused(operation, change.object, failure.errno, failure.sentence)
}
