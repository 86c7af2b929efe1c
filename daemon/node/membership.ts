// This node's place in the network: configuration, interface, lease and our own end of the backend; followed when the host changes under us.
import { setTimeout as sleep } from 'node:timers/promises'
import { formatIp, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Health } from '../health/health.ts'
import { liesWithin, publishesUs } from '../lease/acquire.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import type { LeaseEvent, Store, StoreEvent } from '../lease/store.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject, Link } from '../state/object.ts'
import type { InterfaceChoice } from './choose-interface.ts'
import { Configuration, type Configured, configured } from './configuration.ts'
import { checkHost } from './host-checks.ts'
import { type InterfaceDeps, NodeInterface } from './interface.ts'
import type { Remembered } from './lease-file.ts'
import { networksOf, type Place, publishedMac, sameChoice, sameFacts } from './place.ts'

export type MembershipDeps = InterfaceDeps & {
  readonly reconciler: Reconciler
  readonly store: Store
  readonly peers: Peers
  readonly health: Health
  readonly log: Log
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
  /** The subnets of the subnet.env that an earlier daemon left; those of the remembered lease where there is none. */
  readonly previous: PerFamily<Prefix>
  /** The lease that an earlier weftd held shortly before, if any: with it we begin when the store does not answer. */
  readonly remembered: Remembered | undefined
  /** Milliseconds that the store has for its first answer before that. */
  readonly patienceMs: number
  /** What every node has besides its backend: firewall, forwarding. */
  readonly alsoOwn: (place: Place) => readonly KernelObject[]
  /** Called whenever the place is new or has changed, before pods are served with it and before anything may be called stale. */
  readonly placed: (place: Place) => Promise<void>
}

/** Milliseconds between two attempts where nothing tells us that it is worth trying, and for which changes of the host are collected. */
const AGAIN = 1_000
const SETTLE = 50

/** Conditions that only a store which answers can bring about. */
const ANSWERS = /^(CONFIG_(MISSING|INVALID)|POD_CIDR|NODE_UNKNOWN|SUBNETS_EXHAUSTED|LEASE_LOST)/

export class Membership {
  readonly #deps: MembershipDeps
  readonly #configuration: Configuration
  readonly #interface: NodeInterface
  /** The configuration as the store gave it. */
  #given: string | undefined
  #place: Place | undefined
  #looking = false
  #changed = false
  /** Ends an attempt to publish facts that are no longer true. */
  #attempt: AbortController | undefined
  /** An attempt has begun and not ended well: what the store holds of us is not known. */
  #unsure = false
  /** What is being published at the moment. */
  #attempted: InterfaceChoice | undefined

  constructor(deps: MembershipDeps) {
    this.#deps = deps
    this.#configuration = new Configuration(deps.store, deps.health)
    this.#interface = new NodeInterface(deps)
  }

  /** Undefined until a subnet is held and our end is set up. */
  get place(): Place | undefined {
    return this.#place
  }

  /** Joins the network and follows the host's interfaces; resolves when pods can be served. Until then conditions say what it waits for. */
  async join(signal: AbortSignal): Promise<void> {
    const { health, store, remembered } = this.#deps
    health.raise('STARTING', `reading the network configuration from the ${store.type} store`)
    if (remembered === undefined || !(await this.#joinOrResume(remembered, signal))) await this.#joinAfresh(signal)
    this.#followHost(signal)
    // What changed while the store was asked for a subnet; and a resumed place wants the store's word.
    this.#lookSoon(signal)
  }

  async #joinAfresh(signal: AbortSignal): Promise<void> {
    const [given, choice] = await this.#configuration.read(signal, (read) => this.#suitedTo(read, signal))
    this.#given = given.text
    await this.#take(given, choice, signal)
  }

  /** False when neither the store answered in time nor what an earlier weftd held is of use. The Kubernetes store has its configuration at once, from a file. */
  async #joinOrResume(remembered: Remembered, signal: AbortSignal): Promise<boolean> {
    const attempt = new AbortController()
    const joining = this.#joinAfresh(AbortSignal.any([signal, attempt.signal]))
    const isSilent = await Promise.race([
      joining.then(() => false),
      sleep(this.#deps.patienceMs, true, { signal, ref: false })
    ])
    if (!isSilent || this.#hasAnswered(remembered)) {
      await joining
      return true
    }
    attempt.abort()
    joining.catch(() => undefined)
    return this.#resume(remembered)
  }

  #followHost(signal: AbortSignal): void {
    this.#deps.reconciler.onObserved((changed) => {
      if (changed === 'everything' || changed.some((object) => object.kind !== 'route')) this.#lookSoon(signal)
    })
  }

  /** Whether the store has said something that what we remember must not overrule, though it may be of no use yet. */
  #hasAnswered({ text }: Remembered): boolean {
    const isNew = this.#given !== undefined && this.#given !== text
    return this.#place !== undefined || isNew || this.#deps.health.active().some(({ code }) => ANSWERS.test(code))
  }

  /** Takes the place of an earlier weftd as it was, so that pods are served; false when this host is no longer what that lease is for. */
  async #resume({ text, lease }: Remembered): Promise<boolean> {
    const { log, store } = this.#deps
    try {
      const { conf, backend } = configured(text, 'the remembered configuration')
      const choice = await this.#interface.choose(conf)
      if (!liesWithin(lease.subnet, conf) || !publishesUs(lease, choice.publicIp)) return false
      const node = { ...this.#facts(choice), subnet: lease.subnet, publishedMac: publishedMac(lease) }
      this.#unsure = true
      log.warn(
        { lease: leaseKey(lease), publicIp: perFamily(lease.publicIp).map(([, ip]) => formatIp(ip)) },
        `the ${store.type} store does not answer; going on with the lease of an earlier weftd until it does`
      )
      await this.#settle({ node, backend, conf, text, lease, mtu: backend.mtu(node), isConfirmed: false })
      return true
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      log.warn({ reason: reasonOf(error) }, 'the lease of an earlier weftd is of no use here')
      return false
    }
  }

  /** The leases among a store's events; what the store tells of the configuration is compared with the one in use. */
  async *leases(events: AsyncIterable<StoreEvent>): AsyncGenerator<LeaseEvent, void> {
    for await (const event of events) {
      if (event.kind === 'configuration') this.#configuration.heard(event.text)
      else yield event
    }
  }

  /** Errors: CONFIG_INVALID, as soon as there is an interface. */
  async #suitedTo(read: Configured, signal: AbortSignal): Promise<InterfaceChoice> {
    const choice = await this.#interface.untilChosen(read.conf, signal)
    this.#mtuFits(read, choice)
    return choice
  }

  /** Errors: CONFIG_INVALID when the interface does not carry the MTU that is configured. */
  #mtuFits({ conf, backend }: Pick<Configured, 'conf' | 'backend'>, choice: InterfaceChoice): void {
    backend.mtu({ ...this.#facts(choice), subnet: networksOf(conf) })
  }

  /** Takes or renews the lease for this choice, then sets up our end and computes the peers from here. */
  async #take(given: Configured, choice: InterfaceChoice, signal: AbortSignal) {
    const { store, health, log } = this.#deps
    const { conf, backend } = given
    const before = this.#place
    const facts = this.#facts(choice)
    log.info({ device: choice.device, reasons: choice.reasons }, 'interface chosen')
    const wish = {
      node: this.#deps.nodeName,
      network: conf,
      publicIp: choice.publicIp,
      previous: before === undefined ? this.#deps.previous : before.node.subnet,
      ...(before?.isConfirmed === false && { only: before.node.subnet }),
      backendType: backend.type,
      isOfOurTunnel: (lease: Lease) =>
        perFamily(publishedMac(lease)).some(([, mac]) => facts.tunnels.some((tunnel) => tunnel.mac === mac)),
      backendData: (held: Lease | undefined) => backend.publish({ ...facts, publishedMac: publishedMac(held) })
    }
    if (before === undefined) health.raise('STARTING', `asking the ${store.type} store for a subnet`)
    this.#unsure = true
    const lease = await this.#acquire(wish, signal)
    signal.throwIfAborted()
    this.#unsure = false
    const node: Node = { ...facts, subnet: lease.subnet, publishedMac: publishedMac(lease) }
    const mtu = backend.mtu(node)
    const publicIp = perFamily(lease.publicIp).map(([, ip]) => formatIp(ip))
    const word = before === undefined ? 'subnet leased' : 'lease renewed'
    log.info({ lease: leaseKey(lease), publicIp, mtu, backend: backend.type }, word)
    await this.#settle({ ...given, node, lease, mtu, isConfirmed: true })
  }

  async #settle(place: Place): Promise<void> {
    const { health, reconciler, peers } = this.#deps
    const { node, backend, conf } = place
    this.#place = place
    this.#configuration.use(place)
    await reconciler.want('node', [...backend.own(node), ...this.#deps.alsoOwn(place)])
    try {
      await this.#deps.placed(place)
    } finally {
      // Whatever could not be written or read there: the other nodes are reached from here.
      await peers.settle({ node, backend, networks: networksOf(conf) })
    }
    health.clear('NO_LEASE')
    health.clear('STARTING')
    this.#tellHostFaults(place)
  }

  #tellHostFaults({ node, conf }: Place): void {
    const { health, reconciler } = this.#deps
    for (const [code, fault] of Object.entries(checkHost(reconciler.observed, node, networksOf(conf)))) {
      if (fault === undefined) health.clear(code as ConditionCode)
      else health.raise(code as ConditionCode, fault.detail, fault.cure)
    }
  }

  async #acquire(wish: Parameters<Store['acquire']>[0], signal: AbortSignal): Promise<Lease> {
    for (;;) {
      try {
        const lease = await this.#deps.store.acquire(wish, signal)
        this.#deps.health.clear('SUBNETS_EXHAUSTED')
        return lease
      } catch (error) {
        if (!(error instanceof WeftError) || signal.aborted) throw error
        if (error.code === 'SUBNETS_EXHAUSTED' || error.code === 'LEASE_LOST')
          this.#deps.health.raise(error.code, error.message)
        else this.#deps.health.raise('NO_LEASE', reasonOf(error))
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  #facts(choice: InterfaceChoice): Omit<Node, 'subnet'> {
    const links = [...this.#deps.reconciler.observed.values()].filter(
      (object): object is Link => object.kind === 'link'
    )
    return {
      name: this.#deps.nodeName,
      identity: this.#deps.identity,
      device: choice.device,
      deviceMtu: choice.mtu,
      addresses: choice.addresses,
      localIp: choice.localIp,
      publicIp: choice.publicIp,
      ipv6: this.#deps.ipv6,
      tunnels: this.#place?.node.tunnels ?? links.filter((link) => link.form?.type === 'vxlan'),
      publishedMac: this.#place?.node.publishedMac ?? {}
    }
  }

  /** The host changed: looks again soon, once for all that changes together, and never twice at a time. */
  #lookSoon(signal: AbortSignal): void {
    if (this.#place === undefined) return
    this.#changed = true
    this.#giveUpIfOutdated()
    if (this.#looking) return
    this.#looking = true
    this.#lookUntilQuiet(signal)
      .catch((error) => {
        if (!signal.aborted) this.#deps.log.error({ err: error }, 'following a change of the host failed')
      })
      .finally(() => {
        this.#looking = false
      })
  }

  async #lookUntilQuiet(signal: AbortSignal): Promise<void> {
    while (this.#changed) {
      this.#changed = false
      await sleep(SETTLE, undefined, { signal, ref: false })
      const attempt = new AbortController()
      this.#attempt = attempt
      try {
        await this.#look(AbortSignal.any([signal, attempt.signal]))
      } catch (error) {
        if (!attempt.signal.aborted || signal.aborted) throw error
      }
    }
  }

  /** While the store does not answer, the host may change again: what is being published then must not win in the end. */
  #giveUpIfOutdated(): void {
    const attempt = this.#attempt
    if (attempt === undefined || this.#attempted === undefined || this.#place === undefined) return
    const attempted = this.#attempted
    this.#interface.choose(this.#place.conf).then(
      (choice) => {
        if (this.#attempt === attempt && this.#attempted === attempted && !sameChoice(attempted, choice))
          attempt.abort()
      },
      () => undefined
    )
  }

  async #look(signal: AbortSignal): Promise<void> {
    const place = this.#place
    if (place === undefined || signal.aborted) return
    this.#tellHostFaults(place)
    let choice: InterfaceChoice
    try {
      choice = await this.#interface.choose(place.conf)
    } catch (error) {
      // An interface that is down or lost its address will be back: what stands stays until there is something better.
      this.#deps.log.warn(
        { reason: reasonOf(error) },
        'no interface to the other nodes at the moment; everything stays as it is'
      )
      return
    }
    try {
      this.#mtuFits(place, choice)
      this.#deps.health.clear('CONFIG_INVALID')
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      // The link has shrunk under us: what stands stays, and new pods would lose what they send.
      this.#deps.health.raise('CONFIG_INVALID', reasonOf(error), error.cure)
      return
    }
    if (!this.#unsure && sameFacts(place.node, choice)) return
    this.#deps.store.reconnect()
    this.#attempted = choice
    try {
      await this.#take(place, choice, signal)
    } finally {
      this.#attempted = undefined
    }
  }
}
