// Gives routes back that a route of ours has replaced: those to networks of the host's own links.
import { everything, formatPrefix } from '../../ipam/address.ts'
import type { Log } from '../base/log.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { Recognises } from '../state/ownership.ts'
import { type HostView, routesToGiveBack } from './host-networks.ts'

/** The owner of such routes, while they are written. */
const OWNER = 'routes given back to the host'

export type GiveBackDeps = {
  readonly reconciler: Pick<Reconciler, 'observed' | 'want' | 'keep'>
  readonly log: Pick<Log, 'warn'>
}

/** Writes them as the kernel does, and leaves them to the kernel from then on. */
export async function giveBack({ reconciler, log }: GiveBackDeps, view: HostView): Promise<void> {
  const routes = routesToGiveBack(reconciler.observed, view)
  if (routes.length === 0) return
  const destinations = routes.map(({ destination }) => formatPrefix(destination))
  log.warn({ routes: destinations }, "a lease had replaced the host's route to its own network; it is given back")
  await reconciler.want(OWNER, routes)
  reconciler.keep(OWNER, [])
}

/**
 * For the start, before a configuration is known: without such a route the store itself may be out of reach. `networks`
 * is everything, since nobody else makes routes with our protocol.
 */
export const wholeHost = (recognises: Recognises): HostView => ({
  ...{ networks: { 4: everything(4) }, device: '', subnet: {}, recognises }
})
