// This node's membership in the network: configuration, interface, lease and the backend's own objects. Follows changes
// of the host.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Ip, PerFamily, Prefix } from '../../ipam/address.ts'
import type { BackendPort, ConfiguredBackend } from '../backend/backend.ts'
import type { Registry } from '../backend/registry.ts'
import { Backoff, retry } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { Health } from '../health/health.ts'
import { liesWithin } from '../lease/acquire.ts'
import { type Lease, leaseKey } from '../lease/lease.ts'
import { publishesUs } from '../lease/own-lease.ts'
import type { LeaseEvent, LeaseRequest, Store, StoreEvent } from '../lease/store.ts'
import { areOfTwoNodes } from '../peers/conflicts.ts'
import { giveBack, wholeHost } from '../peers/give-back.ts'
import { hostNetworks } from '../peers/host-networks.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Node } from '../state/node.ts'
import type { KernelObject } from '../state/object.ts'
import type { BackendFacts } from './backend-facts.ts'
import type { InterfaceChoice } from './choose-interface.ts'
import { Configuration, type Configured, configured } from './configuration.ts'
import { checkHost } from './host-checks.ts'
import { type InterfaceDeps, NodeInterface } from './interface.ts'
import type { Remembered } from './lease-file.ts'
import { networksOf, type Place, publicIpsOf, sameChoice, sameFacts } from './place.ts'
import { dataOfOurs, proofOf, publishedBefore, recognisedLinks } from './published-before.ts'

export type MembershipDeps = Omit<InterfaceDeps, 'recognises'> & {
  readonly backends: Pick<Registry, 'configure' | 'recognises' | 'namesOurDevice' | 'namesAnotherDevice' | 'claims'>
  readonly backendFacts: BackendFacts
  readonly reconciler: Reconciler
  readonly store: Store
  readonly peers: Peers
  readonly health: Health
  readonly log: Log
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
  /** The bridge of pods that name no other. */
  readonly bridge: string
  /** The subnets in the subnet.env of an earlier daemon; without one those of the remembered lease. */
  readonly previous: PerFamily<Prefix>
  /** A lease that an earlier weftd held shortly before: used when the store does not answer. */
  readonly remembered: Remembered | undefined
  /** Milliseconds that the store has for its first answer before that. */
  readonly patienceMs: number
  /** Before a lease is taken with this backend: what its command printed. Errors: COMMAND_FAILED. */
  readonly beforeLease?: (backend: ConfiguredBackend) => Promise<Pick<Node, 'printed'>>
  /** Claims the backend's ports on these addresses. Errors: PORT_TAKEN naming the pod that has one as host port. */
  readonly usePorts?: (ports: readonly BackendPort[], ips: PerFamily<Ip>) => void
  /** What every node has besides its backend's objects: firewall, forwarding. */
  readonly alsoOwn: (place: Place) => readonly KernelObject[]
  /**
   * Called whenever the place is new or has changed, before pods are served with it and before anything counts as
   * stale.
   */
  readonly placed: (place: Place) => Promise<void>
}

/** Milliseconds between two attempts. */
const RETRY = 1_000
/** Milliseconds for which changes of the host are collected. */
const SETTLE = 50

/** Conditions that need an answer of the store. */
const ANSWERS = /^(CONFIG_(MISSING|INVALID)|POD_CIDR|NODE_UNKNOWN|SUBNETS_EXHAUSTED|LEASE_LOST)/

export class Membership {
  readonly #deps: MembershipDeps
  readonly #configuration: Configuration
  readonly #interface: NodeInterface
  /** The configuration as read from the store. */
  #configurationText: string | undefined
  #place: Place | undefined
  #updating = false
  #changed = false
  /** Ends an attempt to publish facts that are no longer true. */
  #attempt: AbortController | undefined
  /** An attempt has begun and has not succeeded: what the store has of us is unknown. */
  #unsure = false
  /** What is being published at the moment. */
  #attempted: InterfaceChoice | undefined

  constructor(deps: MembershipDeps) {
    this.#deps = deps
    const refuse = ({ conf, backend }: Configured) =>
      this.#place && backend.mtu({ ...this.#place.node, subnet: networksOf(conf) })
    this.#configuration = new Configuration({ ...deps, refuse })
    const interfaceDeps = { ...deps, recognises: deps.backends.recognises }
    this.#interface = new NodeInterface(interfaceDeps, deps.remembered?.lease.publicIp)
  }

  /** Undefined until a subnet is leased and the backend is set up. */
  get place(): Place | undefined {
    return this.#place
  }

  /**
   * Joins the network and follows the host's interfaces; resolves when pods can be served. Until then conditions say
   * what it waits for.
   */
  async join(signal: AbortSignal): Promise<void> {
    const { health, store, remembered } = this.#deps
    health.raise('STARTING', `reading the network configuration from the ${store.type} store`)
    await giveBack(this.#deps, wholeHost(this.#deps.backends.recognises))
    if (remembered === undefined || !(await this.#joinOrResume(remembered, signal))) await this.#joinAfresh(signal)
    this.#followHost(signal)
    // For what changed while the store was asked for a subnet; and a resumed place needs the store's confirmation.
    this.#updateSoon(signal)
  }

  async #joinAfresh(signal: AbortSignal): Promise<void> {
    const [read, choice] = await this.#configuration.read(signal, async (read) => {
      await this.#askWhatWasPublished(signal)
      return this.#interfaceFor(read, signal)
    })
    this.#configurationText = read.text
    await this.#take(read, choice, signal)
  }

  /** Without a remembered lease, the address that our lease in the store publishes stays if this host has it. */
  async #askWhatWasPublished(signal: AbortSignal): Promise<void> {
    const { store, nodeName, remembered, reconciler, log } = this.#deps
    if (remembered !== undefined || store.candidates === undefined) return
    try {
      const leases = await store.candidates(nodeName, signal)
      this.#interface.hasPublished(publishedBefore(leases, { ...this.#deps, observed: reconciler.observed }))
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      // `acquire` reports it.
      log.debug({ reason: reasonOf(error) }, 'the store does not say what this node published before')
    }
  }

  /**
   * False when the store did not answer in time and the remembered lease can't be used either. The Kubernetes store has
   * its configuration at once, from a file.
   */
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
      if (changed === 'everything' || changed.some((object) => object.kind !== 'route')) this.#updateSoon(signal)
    })
  }

  /** Whether the store has answered, even if with an error: its answer takes precedence over the remembered lease. */
  #hasAnswered({ text }: Remembered): boolean {
    const isNew = this.#configurationText !== undefined && this.#configurationText !== text
    return this.#place !== undefined || isNew || this.#deps.health.active().some(({ code }) => ANSWERS.test(code))
  }

  /**
   * Takes the place of an earlier weftd as it was, so that pods are served; false when the lease no longer fits this
   * host.
   */
  async #resume({ text, lease }: Remembered): Promise<boolean> {
    const { log, store, backends } = this.#deps
    try {
      const { conf, backend } = configured(text, 'the remembered configuration', backends)
      const choice = await this.#interface.choose(conf)
      if (!liesWithin(lease.subnet, conf) || !publishesUs(lease, choice.publicIp)) return false
      const facts = { ...this.#facts(choice), subnet: lease.subnet, remembered: lease.backendData }
      const mtu = backend.mtu(facts)
      this.#deps.usePorts?.(backend.ports, choice.localIp)
      const node = { ...facts, ...(await this.#deps.backendFacts.of(backend)) }
      this.#unsure = true
      log.warn(
        { lease: leaseKey(lease), publicIp: publicIpsOf(lease) },
        `the ${store.type} store does not answer; going on with the lease of an earlier weftd until it does`
      )
      await this.#settle({ node, backend, conf, text, lease, mtu, isConfirmed: false })
      return true
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      log.warn({ reason: reasonOf(error) }, 'the lease of an earlier weftd does not fit this host')
      return false
    }
  }

  /**
   * The lease events among a store's events; the others are about the configuration, which is compared with the one in
   * use.
   */
  async *leases(events: AsyncIterable<StoreEvent>): AsyncGenerator<LeaseEvent, void> {
    for await (const event of events) {
      if (event.kind === 'configuration') this.#configuration.stored(event.text)
      else yield event
    }
  }

  /** Waits for an interface. Errors: CONFIG_INVALID (as #checkMtu); KERNEL_FEATURE_MISSING; COMMAND_FAILED. */
  async #interfaceFor(read: Configured, signal: AbortSignal): Promise<InterfaceChoice> {
    const choice = await this.#interface.untilChosen(read.conf, signal)
    this.#checkMtu(read, choice)
    await this.#deps.backendFacts.check(read.backend)
    await this.#deps.beforeLease?.(read.backend)
    return choice
  }

  /** Errors: CONFIG_INVALID when the interface's MTU is below the configured one; PORT_TAKEN. */
  #checkMtu({ conf, backend }: Pick<Configured, 'conf' | 'backend'>, choice: InterfaceChoice): void {
    backend.mtu({ ...this.#facts(choice), subnet: networksOf(conf) })
    this.#deps.usePorts?.(backend.ports, choice.localIp)
  }

  /**
   * Takes or renews the lease for this choice, whose MTU has been checked, then sets up the backend and recomputes the
   * peers.
   */
  async #take(read: Configured, choice: InterfaceChoice, signal: AbortSignal) {
    const { store, health, log } = this.#deps
    const { backend } = read
    const before = this.#place
    const { backendFacts, beforeLease } = this.#deps
    const facts = {
      ...this.#facts(choice),
      ...(await backendFacts.of(backend)),
      ...(await beforeLease?.(backend))
    }
    log.info({ device: choice.device, reasons: choice.reasons }, 'interface chosen')
    if (before === undefined) health.raise('STARTING', `asking the ${store.type} store for a subnet`)
    this.#unsure = true
    const lease = await this.#acquire(this.#requestFor(read, facts, before), signal)
    signal.throwIfAborted()
    this.#unsure = false
    const node: Node = { ...facts, subnet: lease.subnet, remembered: lease.backendData }
    const mtu = backend.mtu(node)
    log.info(
      { lease: leaseKey(lease), publicIp: publicIpsOf(lease), mtu, backend: backend.type },
      before === undefined ? 'subnet leased' : 'lease renewed'
    )
    await this.#settle({ ...read, node, lease, mtu, isConfirmed: true })
  }

  #requestFor({ conf, backend }: Configured, facts: Omit<Node, 'subnet'>, before: Place | undefined): LeaseRequest {
    const { backends, reconciler, nodeName, remembered } = this.#deps
    const previous = before === undefined ? this.#deps.previous : before.node.subnet
    const publish = (kept: Lease['backendData']) => backend.publish({ ...facts, remembered: kept })
    const proof = proofOf({
      ...{ previous, backends, links: facts.links, publicIp: facts.publicIp },
      ...{ present: before?.lease, remembered: remembered?.lease },
      fresh: { backendType: backend.type, backendData: publish({}) }
    })
    return {
      ...{ node: nodeName, network: conf, publicIp: facts.publicIp, backendType: backend.type, ...proof },
      ...(before !== undefined && { only: before.node.subnet }),
      areOfTwoNodes: (a, b) => areOfTwoNodes(a, b, backends.claims),
      occupied: hostNetworks(reconciler.observed, {
        ...{ networks: networksOf(conf), device: facts.device, subnet: previous, recognises: backends.recognises }
      }),
      backendData: (held) => publish(dataOfOurs(held, proof))
    }
  }

  async #settle(place: Place): Promise<void> {
    const { health, reconciler, peers } = this.#deps
    const { node, backend, conf } = place
    this.#place = place
    this.#interface.publishes(node.localIp)
    this.#configuration.use(place)
    await reconciler.want('node', [...backend.own(node), ...this.#deps.alsoOwn(place)])
    try {
      await this.#deps.placed(place)
    } finally {
      // Whatever failed there: routes to the other nodes are needed all the same.
      await peers.settle({ node, backend, networks: networksOf(conf), lease: place.lease })
    }
    health.clear('NO_LEASE')
    health.clear('STARTING')
    this.#reportHostFaults(place)
  }

  #reportHostFaults({ node, conf }: Place): void {
    const { health, reconciler, bridge, backends } = this.#deps
    const expected = { networks: networksOf(conf), bridge, recognises: backends.recognises }
    for (const [code, fault] of Object.entries(checkHost(reconciler.observed, node, expected))) {
      if (fault === undefined) health.clear(code as ConditionCode)
      else health.raise(code as ConditionCode, fault.detail, fault.cure)
    }
  }

  async #acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    const onError = (error: unknown) => {
      if (!(error instanceof WeftError)) throw error
      if (error.code === 'SUBNETS_EXHAUSTED' || error.code === 'LEASE_LOST')
        this.#deps.health.raise(error.code, error.message, error.cure)
      else this.#deps.health.raise('NO_LEASE', reasonOf(error), error.cure)
    }
    const attempt = () => this.#deps.store.acquire(request, signal)
    const lease = await retry(attempt, { signal, backoff: Backoff.constant(RETRY), onError })
    this.#deps.health.clear('SUBNETS_EXHAUSTED')
    return lease
  }

  /** All but the subnet and what only an accepted configuration asks of the host. */
  #facts(choice: InterfaceChoice): Omit<Node, 'subnet' | 'secret' | 'dataPath'> {
    const { nodeName, identity, ipv6, backends, reconciler } = this.#deps
    return {
      ...{ name: nodeName, identity, ipv6 },
      ...{ device: choice.device, deviceMtu: choice.mtu, addresses: choice.addresses },
      ...{ localIp: choice.localIp, publicIp: choice.publicIp },
      links: this.#place?.node.links ?? recognisedLinks(reconciler.observed, backends.recognises),
      remembered: this.#place?.node.remembered ?? {}
    }
  }

  /** The host changed: updates soon, once for all that changes together, and never twice at a time. */
  #updateSoon(signal: AbortSignal): void {
    if (this.#place === undefined) return
    this.#changed = true
    this.#abortIfOutdated()
    if (this.#updating) return
    this.#updating = true
    this.#updateUntilQuiet(signal)
      .catch((error) => {
        if (!signal.aborted) this.#deps.log.error({ err: error }, 'updating after a change of the host failed')
      })
      .finally(() => {
        this.#updating = false
      })
  }

  async #updateUntilQuiet(signal: AbortSignal): Promise<void> {
    while (this.#changed) {
      this.#changed = false
      await sleep(SETTLE, undefined, { signal, ref: false })
      const attempt = new AbortController()
      this.#attempt = attempt
      try {
        await this.#update(AbortSignal.any([signal, attempt.signal]))
      } catch (error) {
        if (!attempt.signal.aborted || signal.aborted) throw error
      }
    }
  }

  /**
   * While the store does not answer, the host may change again: an outdated choice must not be the last one published.
   */
  #abortIfOutdated(): void {
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

  async #update(signal: AbortSignal): Promise<void> {
    const place = this.#place
    if (place === undefined || signal.aborted) return
    this.#reportHostFaults(place)
    let choice: InterfaceChoice
    try {
      choice = await this.#interface.choose(place.conf)
    } catch (error) {
      // An interface that is down or lost its address usually comes back: everything stays until there is a better one.
      this.#deps.log.warn(
        { reason: reasonOf(error) },
        'no interface to the other nodes at the moment; routes and pods are kept'
      )
      return
    }
    try {
      this.#checkMtu(place, choice)
      this.#deps.health.clear('CONFIG_INVALID')
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      // The interface's MTU is smaller than before: existing pods stay, new ones would lose packets.
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
