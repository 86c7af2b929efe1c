// Orders changes for the kernel: what others depend on is created first and removed last.
import type { Change } from './difference.ts'
import { deviceOf, type KernelObject, type Key, keyOf, type Link, type State, sameObject } from './object.ts'

/** Smaller is created earlier and removed later. The order within a VXLAN peer is flannel's: neighbour, FDB, route. */
function rank(object: KernelObject): number {
  switch (object.kind) {
    case 'link':
      return object.form?.type === 'veth' || object.form?.type === 'vlan' ? 1 : 0
    case 'fou':
      return 0
    case 'vlans':
      // Before a pod's end is up: until then its port is in the bridge's default VLAN.
      return 1.5
    case 'sysctl':
    case 'offload':
    case 'wg-device':
      // Before addresses: disable_ipv6 refuses them, and accept_dad decides whether they are tentative.
      return 2
    case 'address':
      return 3
    case 'neighbour':
    case 'proxy':
      return 4
    case 'fdb':
    case 'tunnel-socket':
    case 'tunnel-peer':
    case 'wg-peer':
      return 5
    case 'route':
      // A route through a gateway needs the route that makes the gateway reachable.
      return object.gateway === undefined ? 6 : 7
    case 'nft-set':
      return 8
    case 'nft-chain':
    case 'iptables-chain':
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
 * What is on those of these links that must be recreated: it goes with them, and has to be put back with them. Of a
 * link that must be created, those of these keys that are on it: what is observed there was on an earlier link of this
 * name.
 */
export function onRemadeLinks(keys: readonly Key[], desired: State, observed: State): readonly Key[] {
  const onNew = keys.filter((key) => {
    const object = desired.get(key)
    const device = object && deviceOf(object)
    const link = device === undefined ? undefined : keyOf({ kind: 'link', name: device })
    return link !== undefined && observed.has(key) && desired.has(link) && !observed.has(link)
  })
  const remade = new Set(
    keys.flatMap((key) => {
      const [wanted, have] = [desired.get(key), observed.get(key)]
      return wanted?.kind === 'link' && have?.kind === 'link' && mustRecreate(wanted, have) ? [wanted.name] : []
    })
  )
  if (remade.size === 0) return onNew
  return [...onNew, ...[...desired].flatMap(([key, object]) => (remade.has(deviceOf(object) ?? '') ? [key] : []))]
}

/** What a route that is still in use may depend on: removed once the routes lead elsewhere. */
const isUnderRoutes = ({ kind }: KernelObject): boolean => kind === 'fdb' || kind === 'neighbour'

/**
 * Removals first (in reverse order of creation), then puts; a link whose creation parameters differ becomes a removal
 * and a put. Entries of a peer that is reached otherwise now go last, so that no packet finds a route without them.
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
  const isLate = ({ object }: Change) => isUnderRoutes(object) && !removedLinks.has(deviceOf(object) ?? '')
  return [...needed.filter((change) => !isLate(change)), ...puts, ...needed.filter(isLate)]
}
