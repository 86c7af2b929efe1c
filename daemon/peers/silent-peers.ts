// Watches for nodes that do not answer by WireGuard: its handshakes are a probe that costs nothing.
import type { Health } from '../health/health.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import { type KernelObject, type Key, keyOf } from '../state/object.ts'
import { SESSION_MS, type WgPeer } from '../state/wireguard.ts'

export type SilentPeersDeps = {
  readonly reconciler: Pick<Reconciler, 'onObserved' | 'observed' | 'desired'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  /** Milliseconds since 1970, the clock of handshakes. */
  readonly now: () => number
}

/** Octets sent, and since when each dump showed more of them; `undefined`: nothing was sent since the last one. */
type Sent = { readonly octets: number; readonly since: number | undefined }

/** Nodes that a message names. */
const NAMED = 3

export class SilentPeers {
  readonly #deps: SilentPeersDeps
  #sent = new Map<Key, Sent>()

  constructor(deps: SilentPeersDeps) {
    this.#deps = deps
  }

  /** Looks after each complete dump: the kernel notifies neither handshakes nor traffic. */
  follow(): void {
    this.#deps.reconciler.onObserved((changed) => {
      if (changed === 'everything') this.look()
    })
  }

  /** Raises or clears WIREGUARD_SILENT. */
  look(): void {
    const { reconciler, health, now } = this.#deps
    const at = now()
    const sent = new Map<Key, Sent>()
    const silent: WgPeer[] = []
    for (const object of reconciler.observed.values()) {
      if (!isWanted(object, reconciler.desired) || object.traffic === undefined) continue
      const { handshakeAt, sent: octets } = object.traffic
      if (at - handshakeAt < SESSION_MS) continue
      const before = this.#sent.get(keyOf(object))
      const hasGrown = before !== undefined && octets > before.octets
      const since = hasGrown ? (before.since ?? at) : undefined
      sent.set(keyOf(object), { octets, since })
      if (since !== undefined && at - since >= SESSION_MS) silent.push(object)
    }
    this.#sent = sent
    const [first] = silent
    if (first === undefined) {
      health.clear('WIREGUARD_SILENT')
      return
    }
    const names = silent.slice(0, NAMED).map((peer) => this.#named(peer))
    const more = silent.length > NAMED ? ` and ${silent.length - NAMED} more` : ''
    health.raise(
      'WIREGUARD_SILENT',
      `no handshake for 3 minutes with ${names.join(', ')}${more}, though packets are sent`
    )
  }

  #named(peer: WgPeer): string {
    const wanted = this.#deps.reconciler.desired.get(keyOf(peer))
    const port = wanted?.kind === 'wg-peer' ? wanted.endpoint?.port : undefined
    return `${wanted?.because ?? peer.publicKey} (UDP port ${port ?? 'unknown'})`
  }
}

const isWanted = (object: KernelObject, desired: ReadonlyMap<Key, KernelObject>): object is WgPeer =>
  object.kind === 'wg-peer' && desired.has(keyOf(object))
