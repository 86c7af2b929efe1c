// This node's place in the network: configuration, interface, lease and our own end of the backend; followed when the host changes under us.
import { setTimeout as sleep } from 'node:timers/promises'
import {
  FAMILIES,
  type Family,
  formatIp,
  type Ip,
  type PerFamily,
  type Prefix,
  perFamily,
  samePrefix
} from '../ipam/address.ts'
import type { ConfiguredBackend } from './backend/backend.ts'
import { configureBackend } from './backend/registry.ts'
import { configurationChanges } from './config/changes.ts'
import { type Json, type NetConf, parseNetConf } from './config/net-conf.ts'
import { reasonOf, WeftError } from './error.ts'
import type { ConditionCode, Health } from './health.ts'
import { hostFaults } from './host-faults.ts'
import { type Lease, leaseKey } from './lease/lease.ts'
import type { LeaseEvent, Store, StoreEvent } from './lease/store.ts'
import type { Log } from './log.ts'
import { chooseInterface, type InterfaceChoice, type InterfaceWish } from './node.ts'
import type { Peers } from './peers.ts'
import type { Reconciler } from './reconciler.ts'
import type { Kernel } from './state/kernel.ts'
import type { Node } from './state/node.ts'
import { type KernelObject, type Link, type Mac, parseMac } from './state/object.ts'

export type Place = {
  readonly node: Node
  readonly backend: ConfiguredBackend
  readonly conf: NetConf
  readonly lease: Lease /** Bytes, for pods. */
  readonly mtu: number
}

export type NetworkSurroundings = {
  readonly kernel: Kernel
  readonly reconciler: Reconciler
  readonly store: Store
  readonly peers: Peers
  readonly health: Health
  readonly log: Log
  readonly nodeName: string
  readonly identity: string
  readonly ipv6: boolean
  readonly wish: Omit<InterfaceWish, 'families' | 'reaching'> & { readonly canReach?: Ip }
  /** The subnets of the subnet.env that an earlier daemon left. */
  readonly previous: PerFamily<Prefix>
  /** What every node has besides its backend: firewall, forwarding. */
  readonly alsoOwn: (place: Place) => readonly KernelObject[]
  /** Called whenever the place is new or has changed, before pods are served with it and before anything may be called stale. */
  readonly placed: (place: Place) => Promise<void>
}

/** Milliseconds between two attempts where nothing tells us that it is worth trying, and for which changes of the host are collected. */
const AGAIN = 1_000
const SETTLE = 50

export class Network {
  readonly #around: NetworkSurroundings
  #place: Place | undefined
  #looking = false
  #changed = false
  /** Ends an attempt to publish facts that are no longer true. */
  #attempt: AbortController | undefined
  /** An attempt has begun and not ended well: what the store holds of us is not known. */
  #unsure = false
  /** What is being published at the moment. */
  #attempted: InterfaceChoice | undefined
  /** What the store was last heard to hold. */
  #stored: { readonly text: string | undefined } | undefined

  constructor(around: NetworkSurroundings) {
    this.#around = around
  }

  /** Undefined until a subnet is held and our end is set up. */
  get place(): Place | undefined {
    return this.#place
  }

  /** Joins the network and follows the host's interfaces; resolves when pods can be served. Until then conditions say what it waits for. */
  async join(signal: AbortSignal): Promise<void> {
    this.#around.health.raise('STARTING', `reading the network configuration from the ${this.#around.store.type} store`)
    const conf = await this.#configuration(signal)
    const backend = configureBackend(conf.backendType, conf.backend)
    const choice = await this.#untilChosen(conf, signal)
    this.#around.reconciler.onObserved((changed) => {
      if (changed === 'everything' || changed.some((object) => object.kind !== 'route')) this.#lookSoon(signal)
    })
    await this.#take(conf, backend, choice, signal)
    // What changed while the store was asked for a subnet.
    this.#lookSoon(signal)
  }

  /** The leases among a store's events; what the store tells of the configuration is compared with the one in use. */
  async *leases(events: AsyncIterable<StoreEvent>): AsyncGenerator<LeaseEvent, void> {
    for await (const event of events) {
      if (event.kind === 'configuration') {
        this.#stored = event
        this.#compareConfiguration()
      } else yield event
    }
  }

  /** A change is told, not taken over: other nodes still use the old one, and pods have its addresses. */
  #compareConfiguration(): void {
    const { health, store } = this.#around
    if (this.#place === undefined || this.#stored === undefined) return
    const { text } = this.#stored
    const changes = text === undefined ? ['there is none any more'] : this.#changesIn(text, this.#place.conf)
    if (changes.length === 0) health.clear('CONFIG_CHANGED')
    else health.raise('CONFIG_CHANGED', `${store.configurationPlace}: ${changes.join('; ')}`)
  }

  #changesIn(text: string, inUse: NetConf): readonly string[] {
    try {
      return configurationChanges(inUse, parseNetConf(text, 'it'))
    } catch (error) {
      return [`what it holds now is not valid: ${reasonOf(error)}`]
    }
  }

  /** The configuration once it is there and valid; an invalid one is read again until somebody corrects it. */
  async #configuration(signal: AbortSignal): Promise<NetConf> {
    for (;;) {
      const text = await this.#around.store.configuration(signal)
      try {
        const conf = parseNetConf(text, this.#around.store.configurationPlace)
        configureBackend(conf.backendType, conf.backend)
        this.#around.health.clear('CONFIG_INVALID')
        return conf
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        this.#around.health.raise('CONFIG_INVALID', reasonOf(error))
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  async #untilChosen(conf: NetConf, signal: AbortSignal): Promise<InterfaceChoice> {
    for (;;) {
      try {
        const choice = await this.#choose(conf)
        this.#around.health.clear('NO_INTERFACE')
        return choice
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        this.#around.health.raise('NO_INTERFACE', reasonOf(error))
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  async #choose(conf: NetConf): Promise<InterfaceChoice> {
    const { canReach, ...wish } = this.#around.wish
    const reached = canReach === undefined ? undefined : await this.#around.kernel.routeTo(canReach)
    const reaching =
      canReach === undefined ? {} : { reaching: { target: canReach, ...(reached && { device: reached.device }) } }
    return chooseInterface(this.#around.reconciler.observed, { ...wish, ...reaching, families: familiesOf(conf) })
  }

  /** Takes or renews the lease for this choice, then sets up our end and computes the peers from here. */
  async #take(conf: NetConf, backend: ConfiguredBackend, choice: InterfaceChoice, signal: AbortSignal): Promise<void> {
    const { store, health, log } = this.#around
    const facts = this.#facts(choice)
    log.info({ device: choice.device, reasons: choice.reasons }, 'interface chosen')
    const wish = {
      node: this.#around.nodeName,
      network: conf,
      publicIp: choice.publicIp,
      previous: this.#place === undefined ? this.#around.previous : this.#place.node.subnet,
      backendType: backend.type,
      backendData: (held: Lease | undefined) => backend.publish({ ...facts, publishedMac: publishedMac(held) })
    }
    if (this.#place === undefined) health.raise('STARTING', `asking the ${store.type} store for a subnet`)
    this.#unsure = true
    const lease = await this.#acquire(wish, signal)
    this.#unsure = false
    const node: Node = { ...facts, subnet: lease.subnet, publishedMac: publishedMac(lease) }
    const place: Place = { node, backend, conf, lease, mtu: backend.mtu(node) }
    const first = this.#place === undefined
    this.#place = place
    this.#compareConfiguration()
    log.info(
      {
        lease: leaseKey(lease),
        publicIp: perFamily(lease.publicIp).map(([, ip]) => formatIp(ip)),
        mtu: place.mtu,
        backend: backend.type
      },
      first ? 'subnet leased' : 'lease renewed'
    )
    await this.#around.reconciler.want('node', [...backend.own(node), ...this.#around.alsoOwn(place)])
    await this.#around.placed(place)
    await this.#around.peers.settle({ node, backend, networks: networksOf(conf) })
    health.clear('NO_LEASE')
    health.clear('STARTING')
    this.#tellHostFaults(place)
  }

  #tellHostFaults({ node, conf }: Place): void {
    const { health, reconciler } = this.#around
    for (const [code, detail] of Object.entries(hostFaults(reconciler.observed, node, networksOf(conf)))) {
      if (detail === undefined) health.clear(code as ConditionCode)
      else health.raise(code as ConditionCode, detail)
    }
  }

  async #acquire(wish: Parameters<Store['acquire']>[0], signal: AbortSignal): Promise<Lease> {
    for (;;) {
      try {
        const lease = await this.#around.store.acquire(wish, signal)
        this.#around.health.clear('SUBNETS_EXHAUSTED')
        return lease
      } catch (error) {
        if (!(error instanceof WeftError) || signal.aborted) throw error
        if (error.code === 'SUBNETS_EXHAUSTED') this.#around.health.raise('SUBNETS_EXHAUSTED', error.message)
        else this.#around.health.raise('NO_LEASE', reasonOf(error))
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  #facts(choice: InterfaceChoice): Omit<Node, 'subnet'> {
    const links = [...this.#around.reconciler.observed.values()].filter(
      (object): object is Link => object.kind === 'link'
    )
    return {
      name: this.#around.nodeName,
      identity: this.#around.identity,
      device: choice.device,
      deviceMtu: choice.mtu,
      addresses: choice.addresses,
      localIp: choice.localIp,
      publicIp: choice.publicIp,
      ipv6: this.#around.ipv6,
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
        if (!signal.aborted) this.#around.log.error({ err: error }, 'following a change of the host failed')
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
    this.#choose(this.#place.conf).then(
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
      choice = await this.#choose(place.conf)
    } catch (error) {
      // An interface that is down or lost its address will be back: what stands stays until there is something better.
      this.#around.log.warn(
        { reason: reasonOf(error) },
        'no interface to the other nodes at the moment; everything stays as it is'
      )
      return
    }
    if (!this.#unsure && sameFacts(place.node, choice)) return
    this.#around.store.reconnect()
    this.#attempted = choice
    try {
      await this.#take(place.conf, place.backend, choice, signal)
    } finally {
      this.#attempted = undefined
    }
  }
}

/** The whole network of each family. */
export const networksOf = (conf: NetConf | undefined): PerFamily<Prefix> =>
  Object.fromEntries(
    FAMILIES.flatMap((family) =>
      conf?.families[family] === undefined ? [] : [[family, conf.families[family].network]]
    )
  )

const familiesOf = (conf: NetConf): readonly Family[] =>
  FAMILIES.filter((family) => conf.families[family] !== undefined)

/** Whether two choices say the same to the other nodes. */
const sameChoice = (a: InterfaceChoice, b: InterfaceChoice): boolean => sameFacts({ ...a, deviceMtu: a.mtu }, b)

function sameFacts(
  node: Pick<Node, 'device' | 'deviceMtu' | 'localIp' | 'publicIp' | 'addresses'>,
  choice: InterfaceChoice
): boolean {
  const ips = (record: PerFamily<Ip>) =>
    perFamily(record)
      .map(([, ip]) => formatIp(ip))
      .join(' ')
  return (
    node.device === choice.device &&
    node.deviceMtu === choice.mtu &&
    ips(node.localIp) === ips(choice.localIp) &&
    ips(node.publicIp) === ips(choice.publicIp) &&
    node.addresses.length === choice.addresses.length &&
    node.addresses.every((prefix) =>
      choice.addresses.some((other) => prefix.ip.value === other.ip.value && samePrefix(prefix, other))
    )
  )
}

/** The VTEP MACs that a lease publishes: they stay ours for as long as the lease does. */
function publishedMac(lease: Lease | undefined): PerFamily<Mac> {
  const macs: { [F in Family]?: Mac } = {}
  for (const [family, published] of perFamily(lease?.backendData ?? {})) {
    const mac = parseMac(String((published as { readonly [key: string]: Json } | null)?.VtepMAC ?? ''))
    if (mac !== undefined) macs[family] = mac
  }
  return macs
}
