// Follows the chains of other programs and keeps an accept for pods in each that would drop them; says who it is.
import type { PerFamily, Prefix } from '../ipam/address.ts'
import { dropReasons, foreignAccepts, foreignDrops } from './firewall/foreign.ts'
import type { Health } from './health.ts'
import type { ForeignView } from './kernel/nftables.ts'
import type { Log } from './log.ts'
import type { Reconciler } from './reconciler.ts'

/** Until the iterable ends; `answered` is called after each look. */
export async function answerForeignDrops(
  views: AsyncIterable<ForeignView>,
  cluster: PerFamily<Prefix>,
  around: { readonly reconciler: Reconciler; readonly health: Health; readonly log: Log; readonly answered: () => void }
): Promise<void> {
  let trouble = ''
  for await (const view of views) {
    const drops = foreignDrops(view.tables, cluster)
    await around.reconciler.want('foreign drops', foreignAccepts(drops))
    const [first, ...others] = dropReasons(drops)
    if (first === undefined) around.health.clear('FORWARD_DROPPED')
    else around.health.raise('FORWARD_DROPPED', [first, ...others].join('; '))
    const now = view.trouble?.message ?? ''
    if (now !== '' && now !== trouble)
      around.log.warn({ err: view.trouble }, 'some firewall rules of other programs can not be read')
    trouble = now
    around.answered()
  }
}
