// The attachments this daemon knows, for weftctl and for noticing that one has vanished; and the queue that keeps verbs on one attachment in a row.
import type { Ip } from '../../ipam/address.ts'
import type { Bandwidth, HostPort, Pod } from '../../plugins/attachment.ts'
import { type Identity, ownerOf, portsOwnerOf } from './names.ts'
import { PortClaims } from './port-claims.ts'

export type Known = Identity & {
  /** The link on the host. */
  readonly link: string
  readonly addresses: readonly Ip[]
  readonly hostPorts?: readonly HostPort[]
  readonly bandwidth?: Bandwidth
  readonly pod?: Pod
  /** Path of the container's namespace; not known of pods of an earlier weftd. */
  readonly sandbox?: string
  readonly because: string
}

export class Attachments {
  readonly ports = new PortClaims()
  /** Whom the bandwidth plugin limits, by the link on the host. */
  readonly limited = new Map<string, Identity>()
  /** Whose packets the firewall plugin lets through, by `ownerOf`. */
  readonly forwarded = new Map<string, Identity>()
  readonly #known = new Map<string, Known>()
  readonly #byLink = new Map<string, string>()
  readonly #last = new Map<string, Promise<unknown>>()

  /** Runs `work` after whatever is under way for the same attachment; others go on beside it. */
  async inTurn<T>(who: Identity, work: () => Promise<T>): Promise<T> {
    const key = ownerOf(who)
    const before = this.#last.get(key)
    const mine = (before ?? Promise.resolve()).then(work, work)
    this.#last.set(key, mine)
    try {
      return await mine
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key)
    }
  }

  set(attachment: Known): void {
    const owner = ownerOf(attachment)
    this.#known.set(owner, attachment)
    this.#byLink.set(attachment.link, owner)
  }

  /** With what plugins behind the interface's own keep for it: that goes with the interface. */
  delete(who: Identity): void {
    const known = this.#known.get(ownerOf(who))
    if (known !== undefined) this.#byLink.delete(known.link)
    this.#known.delete(ownerOf(who))
    this.ports.release(ownerOf(who))
    this.ports.release(portsOwnerOf(who))
    this.forgetLimits(who)
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
