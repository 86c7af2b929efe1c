// Orders changes for the kernel: what others depend on is created first and removed last.
import type { Change } from './difference.ts'
import { type KernelObject, type Link, sameObject } from './object.ts'

/** Smaller is created earlier and removed later. The order within a VXLAN peer is flannel's: neighbour, FDB, route. */
function rank(object: KernelObject): number {
  switch (object.kind) {
    case 'link':
      return object.form?.type === 'veth' ? 1 : 0
    case 'address':
      return 2
    case 'sysctl':
      return 3
    case 'neighbour':
    case 'proxy':
      return 4
    case 'fdb':
      return 5
    case 'route':
      // A route through a gateway needs the route that makes the gateway reachable.
      return object.gateway === undefined ? 6 : 7
    case 'nft-set':
      return 8
    case 'nft-chain':
      return 9
    case 'nft-element':
      return 10
    case 'accept':
    case 'admin-call':
      return 11
    case 'qdisc':
      return 12
  }
}

/** Whether fields differ that the kernel accepts only at creation, so that the link must be recreated. */
const mustRecreate = (wanted: Link, have: Link): boolean =>
  wanted.form !== undefined && !sameObject({ kind: 'link', name: have.name, form: wanted.form }, have)

/**
 * Removals first (in reverse order of creation), then puts; a link whose creation parameters differ becomes a removal
 * and a put.
 */
export function order(changes: readonly Change[]): readonly Change[] {
  const removals = changes.filter((change) => change.do === 'remove')
  const puts: Change[] = []
  for (const change of changes) {
    if (change.do === 'remove') continue
    const { object, instead } = change
    if (object.kind === 'link' && instead?.kind === 'link' && mustRecreate(object, instead)) {
      removals.push({ do: 'remove', object: instead })
      puts.push({ do: 'put', object })
    } else puts.push(change)
  }
  const removedLinks = new Set(removals.flatMap(({ object }) => (object.kind === 'link' ? object.name : [])))
  // Removing a queueing discipline by itself makes the kernel wait; with its device it costs nothing.
  const needed = removals.filter(({ object }) => object.kind !== 'qdisc' || !removedLinks.has(object.device))
  needed.sort((a, b) => rank(b.object) - rank(a.object))
  puts.sort((a, b) => rank(a.object) - rank(b.object))
  return [...needed, ...puts]
}
