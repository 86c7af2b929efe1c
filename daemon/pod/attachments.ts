// Registry of the attachments on this node; verbs on the same attachment run one after the other.
import type { Ip } from '../../ipam/address.ts'
import type { Bandwidth, HostPort, Pod } from '../../plugins/attachment.ts'
import { type Identity, ownerOf, portsOwnerOf } from '../attachment/identity.ts'
import { SerialQueue } from '../base/serial-queue.ts'
import { PortClaims } from './port-claims.ts'
import { SharedObjects } from './shared-objects.ts'

export type Known = Identity & {
  /** Name of the link on the host. */
  readonly link: string
  readonly addresses: readonly Ip[]
  readonly hostPorts?: readonly HostPort[]
  readonly bandwidth?: Bandwidth
  readonly pod?: Pod
  /** Path of the container's namespace; unknown for pods set up by an earlier weftd. */
  readonly sandbox?: string
  /** Where its addresses are reserved; absent when a third party's plugin keeps them. */
  readonly dataDir?: string
  readonly because: string
}

/** What the next weftd needs to free a pod's addresses when nothing else is left of the pod. */
export type PodNote = Identity & Pick<Known, 'dataDir' | 'because'>

/** A pod whose link is gone without a DEL; see pod/vanished.ts. `since` is in milliseconds of `PodContext.now`. */
export type Vanished = PodNote & { readonly since: number }

/** Pods in `released`. */
const MOST_RELEASED = 1_000

export class Attachments {
  readonly ports = new PortClaims()
  readonly shared = new SharedObjects()
  /** Attachments that the bandwidth plugin limits, by the link on the host. */
  readonly limited = new Map<string, Identity>()
  /** Owners of addresses that were reserved before there is an interface: no link shows yet that they are in use. */
  readonly reserved = new Set<string>()
  /** By owner. */
  readonly vanished = new Map<string, Vanished>()
  /** The last pods whose addresses were freed without a DEL, by owner, the latest last: for `weftctl why pod`. */
  readonly released = new Map<string, Identity>()
  /** Addresses freed without a DEL, by reason, for the metrics. */
  readonly freed = { reboot: 0, vanished: 0, gc: 0 }
  /** Called after every change of `list` or `vanished`. */
  onChanged: () => void = () => undefined
  readonly #known = new Map<string, Known>()
  readonly #byLink = new Map<string, string>()
  readonly #queues = new Map<string, SerialQueue>()

  /** Runs `work` after all earlier work on the same attachment; work on others is not held up. */
  async inTurn<T>(who: Identity, work: () => Promise<T>): Promise<T> {
    const key = ownerOf(who)
    const queue = this.#queues.get(key) ?? new SerialQueue()
    this.#queues.set(key, queue)
    try {
      return await queue.take(work)
    } finally {
      if (queue.idle) this.#queues.delete(key)
    }
  }

  /** Whether a verb on it is running or queued. */
  isBusy(who: Identity): boolean {
    return this.#queues.has(ownerOf(who))
  }

  /** Whether its addresses are in use: it has an interface, will get one, or a verb on it is running. */
  isInUse(who: Identity): boolean {
    const owner = ownerOf(who)
    return this.#known.has(owner) || this.isBusy(who) || this.reserved.has(owner)
  }

  /** What `reserved` has of an attachment, or of all of a container's where the reservation names no interface. */
  forgetReserved({ network, containerId, ifname = '' }: Omit<Identity, 'ifname'> & Partial<Identity>): void {
    const owner = ownerOf({ network, containerId, ifname })
    for (const each of this.reserved)
      if (each === owner || (ifname === '' && each.startsWith(owner))) this.reserved.delete(each)
  }

  set(attachment: Known): void {
    const owner = ownerOf(attachment)
    this.#known.set(owner, attachment)
    this.#byLink.set(attachment.link, owner)
    this.vanished.delete(owner)
    this.released.delete(owner)
    this.reserved.delete(owner)
    this.onChanged()
  }

  /** A vanished pod's addresses are free again. */
  release(who: Identity): void {
    const owner = ownerOf(who)
    this.vanished.delete(owner)
    this.released.set(owner, who)
    for (const oldest of this.released.keys()) {
      if (this.released.size <= MOST_RELEASED) break
      this.released.delete(oldest)
    }
  }

  /** Also drops the port claims and limits of chained plugins: they end with the interface. */
  delete(who: Identity): void {
    const known = this.#known.get(ownerOf(who))
    if (known !== undefined) this.#byLink.delete(known.link)
    this.#known.delete(ownerOf(who))
    this.vanished.delete(ownerOf(who))
    this.released.delete(ownerOf(who))
    this.ports.release(ownerOf(who))
    this.ports.release(portsOwnerOf(who))
    this.forgetLimits(who)
    this.onChanged()
  }

  forgetLimits(who: Identity): void {
    for (const [link, limited] of this.limited) if (ownerOf(limited) === ownerOf(who)) this.limited.delete(link)
  }

  get(who: Identity): Known | undefined {
    return this.#known.get(ownerOf(who))
  }

  withLink(name: string): Known | undefined {
    return this.#known.get(this.#byLink.get(name) ?? '')
  }

  list(): readonly Known[] {
    return [...this.#known.values()]
  }
}
