// Says when addresses or networks of this host have changed, which leases must not claim.
import type { Log } from '../base/log.ts'
import type { Reconciler } from '../reconcile/reconciler.ts'
import type { KernelObject } from '../state/object.ts'
import { type HostView, mayOccupy } from './host-networks.ts'

export type HostChangesDeps = { readonly reconciler: Pick<Reconciler, 'onObserved'>; readonly log: Log }

/**
 * Calls `changed` once for all changes of a turn of the event loop: it looks at all addresses, and kube-proxy with IPVS
 * adds thousands. `viewed`: how the host is looked at; nothing is called while that is not known.
 */
export function onHostChanged(
  { reconciler, log }: HostChangesDeps,
  viewed: () => HostView | undefined,
  changed: () => Promise<void>
): void {
  let isDue = false
  reconciler.onObserved((observed) => {
    const host = isDue ? undefined : viewed()
    if (host === undefined) return
    const isConcerned = (object: KernelObject) => object.kind === 'address' || mayOccupy(object, host)
    if (observed !== 'everything' && !observed.some(isConcerned)) return
    isDue = true
    setImmediate(() => {
      isDue = false
      changed().catch((error) => log.error({ err: error }, 'refusing leases that claim what is this host’s failed'))
    })
  })
}
