// Applies changes with as few system calls as their order allows: consecutive changes of one channel are a run, and a
// run's messages one send.
import { closeSync } from 'node:fs'
import { setImmediate as turn } from 'node:timers/promises'
import { isLinkLocal } from '../../ipam/address.ts'
import { toError } from '../base/error.ts'
import { errnoName, errnoNumber } from '../os/libc.ts'
import type { Change } from '../state/difference.ts'
import { type StaleFlows, staleFlows } from '../state/host-port.ts'
import type { Outcome } from '../state/kernel.ts'
import type { Address, KernelObject, Link, Route, Sysctl } from '../state/object.ts'
import { textOf } from '../state/text.ts'
import * as encode from './netlink/encode.ts'
import { KernelError, refused } from './netlink/error.ts'
import { putQdisc, removeQdisc } from './netlink/qdisc.ts'
import type { Failure, RequestSocket } from './netlink/request-socket.ts'
import { putVlans } from './netlink/vlans.ts'

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
export type Channel = 'netlink' | 'removal' | 'sysctl' | 'offload' | 'fou' | 'tunnel' | 'firewall'

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
    case 'nft-chain':
    case 'nft-set':
    case 'nft-element':
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
      return new NetlinkRun(target).apply(changes)
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
    case 'firewall': {
      const outcomes = await target.firewall(changes)
      await target.forgetFlows?.(outcomes.flatMap(({ change, error }) => (error ? [] : staleFlows(change))))
      return outcomes
    }
  }
}

/** The index of a device that a pending message creates is not known before that message has been sent. */
class NotCreatedYet extends Error {}

/** `creates`: the link that the messages create. `afterwards`: a message that needs it to exist. */
type Requests = {
  readonly messages: readonly Buffer[]
  readonly creates?: string
  readonly afterwards?: Buffer | undefined
  /** So many of the first messages may fail. */
  readonly mayFail?: number
}
type Planned = Requests & { readonly at: number; readonly change: Change }

/** Changes that are encoded and sent together. */
const BATCH = 500

/** A run of rtnetlink requests. It is one send unless an object names a device that the same run creates. */
class NetlinkRun {
  readonly #target: Target
  readonly #indexes = new Map<string, number>()
  readonly #namespaces = new Map<string, number>()
  readonly #creating = new Set<string>()
  readonly #resolve: encode.Resolve
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

function requestsOf(change: Change, resolve: encode.Resolve): Requests {
  const { object } = change
  const put = change.do === 'put'
  switch (object.kind) {
    case 'link':
      return linkRequests(object, change.instead?.kind === 'link' ? change.instead : undefined, resolve)
    case 'address':
      return {
        messages: put ? addressRequests(object, change.instead, resolve) : [encode.removeAddress(object, resolve)]
      }
    case 'route':
      return put ? routeRequests(object, change.instead, resolve) : { messages: [encode.removeRoute(object, resolve)] }
    case 'neighbour':
      return { messages: [put ? encode.putNeighbour(object, resolve) : encode.removeNeighbour(object, resolve)] }
    case 'proxy':
      return { messages: [put ? encode.putProxy(object, resolve) : encode.removeProxy(object, resolve)] }
    case 'fdb':
      return { messages: [put ? encode.putFdbEntry(object, resolve) : encode.removeFdbEntry(object, resolve)] }
    case 'vlans':
      return { messages: put ? putVlans(object, resolve) : [] }
    case 'qdisc':
      return { messages: put ? putQdisc(object, change.instead, resolve) : [removeQdisc(object, resolve)] }
    default:
      return { messages: [] }
  }
}

/**
 * IPv4 has several routes with one destination and metric, of which the first is used. A replacement replaces the
 * first, and is refused (EEXIST) when ours stands behind it: so ours is removed first, if it is there.
 */
function routeRequests(route: Route, instead: KernelObject | undefined, resolve: encode.Resolve): Requests {
  // In IPv6 a replacement would be a route that no longer goes with the address.
  const isKernels = route.withAddress !== undefined && route.destination.ip.family === 6 && instead === undefined
  // Every device has one to the link-local addresses.
  if (isKernels && isLinkLocal(route.destination.ip)) return { messages: [encode.addRoute(route, resolve)] }
  const put = encode.putRoute(isKernels ? { ...route, yields: true } : route, resolve)
  const isOthers = instead?.kind === 'route' && instead.protocol !== route.protocol
  if (!isOthers || route.yields || route.destination.ip.family !== 4) return { messages: [put] }
  return { messages: [encode.removeRoute(route, resolve), put], mayFail: 1 }
}

/**
 * For IPv4 the kernel acknowledges a replacement with other flags or another scope and changes neither (seen on 6.18),
 * so the old address is removed first.
 */
function addressRequests(
  address: Address,
  instead: KernelObject | undefined,
  resolve: encode.Resolve
): readonly Buffer[] {
  const put = encode.putAddress(address, resolve)
  return instead?.kind === 'address' && address.prefix.ip.family === 4
    ? [encode.removeAddress(instead, resolve), put]
    : [put]
}

const SETTINGS = [
  ...(['up', 'mtu', 'mac', 'master', 'alias', 'group', 'hairpin', 'isolated'] as const),
  ...(['promiscuous', 'allMulticast', 'queueLength', 'vlanFiltering'] as const)
]
const PORT_FLAGS: readonly (typeof SETTINGS)[number][] = ['hairpin', 'isolated']

/**
 * Changes what differs on an existing link; creates one whose form says how; any other must exist already (`lo`, a
 * pod's end of a pair).
 */
function linkRequests(link: Link, instead: Link | undefined, resolve: encode.Resolve): Requests {
  const form = link.form
  const canBeCreated =
    form?.type === 'vxlan' ||
    form?.type === 'bridge' ||
    form?.type === 'ipip' ||
    form?.type === 'ifb' ||
    form?.type === 'vlan' ||
    (form?.type === 'macvlan' && form.madeOn !== undefined) ||
    (form?.type === 'veth' && form.peer !== undefined)
  if (instead === undefined && canBeCreated) {
    return {
      creates: link.name,
      messages: [encode.createLink(link, resolve)],
      afterwards: encode.afterCreation(link, resolve)
    }
  }
  const differs = (field: (typeof SETTINGS)[number]): boolean =>
    link[field] !== undefined && (instead === undefined || link[field] !== instead[field])
  const changing = SETTINGS.filter(differs)
  if (changing.length === 0 && instead !== undefined) return { messages: [] }
  const change = (fields: readonly (typeof SETTINGS)[number][]): Buffer =>
    encode.changeLink(link.name, Object.fromEntries(fields.map((field) => [field, link[field]])), resolve)
  // A port's flags are refused (EOPNOTSUPP) in the message that sets its master: the kernel looks for the bridge before
  // it reads IFLA_MASTER.
  const flags = changing.filter((field) => PORT_FLAGS.includes(field))
  const isPortFirst = changing.includes('master') && flags.length > 0
  if (!isPortFirst) return { messages: [change(changing)] }
  return { messages: [change(changing.filter((field) => !flags.includes(field))), change(flags)] }
}
