// Several configurations of a network at once, while it changes from one to the next: this node has the devices of all,
// and each other node is reached by the configuration that its lease is of.
import type { Lease } from '../lease/lease.ts'
import type { Node } from '../state/node.ts'
import { type KernelObject, keyOf } from '../state/object.ts'
import type { ConfiguredBackend } from './backend.ts'

/** `current` is what this node publishes; `earlier` is what some nodes still use, the latest first. */
export function mixed(current: ConfiguredBackend, earlier: readonly ConfiguredBackend[]): ConfiguredBackend {
  if (earlier.length === 0) return current
  const all = [current, ...earlier]
  const of = (lease: Lease | undefined) => (lease && all.find((each) => each.serves(lease))) ?? current
  const nodes = besideEachOther(all)
  const secret = all.find((each) => each.secret !== undefined)?.secret
  return {
    ...current,
    ...(secret && { secret }),
    features: unique(all, 'features', (feature) => (feature.kind === 'link' ? feature.name : feature.kind)),
    ports: unique(all, 'ports', ({ protocol, port }) => `${protocol} ${port}`),
    // A pod does not know by which configuration its packets go.
    mtu: (node) => Math.min(...all.map((each) => each.mtu(node))),
    own: (node) => ownOf(all.map((each) => each.own(nodes(node).get(each) ?? node))),
    serves: (lease) => all.some((each) => each.serves(lease)),
    held: (subnet, lease) => of(lease).held(subnet),
    heldByAll: all.every((each) => each.heldByAll),
    asksRoutes: all.some((each) => each.asksRoutes),
    peer: (lease, node, routes) => of(lease).peer(lease, nodes(node).get(of(lease)) ?? node, routes),
    ...(all.some(({ plain }) => plain !== undefined) && {
      plain: (lease, node, routes) => of(lease).plain?.(lease, node, routes) ?? []
    })
  }
}

/** The names of a configuration's devices on this node. */
export const devicesOf = (backend: ConfiguredBackend, node: Node): readonly string[] =>
  backend.own(node).flatMap((object) => (object.kind === 'link' ? object.name : []))

/** The node as each configuration sees it: the devices of those before it keep their names. */
function besideEachOther(all: readonly ConfiguredBackend[]): (node: Node) => ReadonlyMap<ConfiguredBackend, Node> {
  // Thousands of leases ask with one node.
  const known = new WeakMap<Node, ReadonlyMap<ConfiguredBackend, Node>>()
  return (node) => {
    const found = known.get(node)
    if (found !== undefined) return found
    const nodes = new Map<ConfiguredBackend, Node>()
    let kept: readonly string[] = []
    for (const backend of all.toReversed()) {
      const beside = { ...node, kept }
      nodes.set(backend, beside)
      kept = [...kept, ...devicesOf(backend, beside)]
    }
    known.set(node, nodes)
    return nodes
  }
}

/** Of an object that several configurations want, as a device with another MTU, the current one's. */
const ownOf = (owns: readonly (readonly KernelObject[])[]): readonly KernelObject[] => [
  ...new Map([...owns].reverse().flatMap((own) => own.map((object) => [keyOf(object), object] as const))).values()
]

function unique<Field extends 'features' | 'ports'>(
  all: readonly ConfiguredBackend[],
  field: Field,
  nameOf: (value: ConfiguredBackend[Field][number]) => string
): readonly ConfiguredBackend[Field][number][] {
  const values = all.flatMap((each): readonly ConfiguredBackend[Field][number][] => each[field])
  return [...new Map(values.map((value) => [nameOf(value), value])).values()]
}
