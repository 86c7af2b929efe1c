// What a prober works with: the leases, the routes to them, sockets and a clock.
import type { Health } from '../health/health.ts'
import type { Place } from '../node/place.ts'
import type { Peers } from '../peers/peers.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Mac } from './probe-packet.ts'
import type { OpenCapture, OpenProbeSocket } from './probe-sockets.ts'

export type ProberDeps = {
  readonly peers: Pick<Peers, 'leases' | 'isOwn' | 'onWanted'>
  readonly reconciler: Pick<Reconciler, 'wantedBy'>
  readonly place: () => (Pick<Place, 'node' | 'backend' | 'mtu'> & Partial<Pick<Place, 'conf'>>) | undefined
  readonly open: OpenProbeSocket
  readonly capture: OpenCapture
  readonly mac: Mac
  readonly health: Pick<Health, 'has'>
  /** Which rule of this node's firewall would drop packets of pods that come by a plain route. */
  readonly plainDrop: () => string | undefined
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
  /** Seconds from a small probe to its answer, on the way of pods' packets. */
  readonly measured?: (seconds: number) => void
  /** The peer tries its plain route to this node. */
  readonly plainHeard?: (key: string) => void
  /** A verdict has changed. Called once for all that a turn changed. */
  readonly changed?: () => void
}
