// What weftd answers when weftctl asks: status, diff, nodes, pods, why. Nothing is tried and nothing changes.
import { contains, formatIp, formatPrefix, type Ip, type PerFamily, parseIp, perFamily } from '../ipam/address.ts'
import type { HostPort } from '../plugins/attachment.ts'
import {
  diffAnswer,
  type HostPortAnswer,
  type LeaseAnswer,
  type ObjectAnswer,
  type PodAnswer,
  type ReachAnswer,
  type StatusFacts,
  statusAnswer,
  type WhyNodeAnswer,
  type WhyPodAnswer
} from './ctl/answers.ts'
import { WeftError } from './error.ts'
import { nearest } from './flag.ts'
import { type Health, sentence } from './health.ts'
import { type Lease, leaseKey } from './lease/lease.ts'
import type { Outcome, Outcomes } from './outcomes.ts'
import { leaseOwnerOf, type Peers } from './peers.ts'
import type { Place } from './place.ts'
import type { Attachments, Known } from './pod/attachments.ts'
import { firewallOwnerOf, limitsOwnerOf, ownerOf, ownersOf, portsOwnerOf } from './pod/names.ts'
import type { Reserved } from './pod/sandboxes.ts'
import { limitsAsWished } from './pod/standing.ts'
import type { Reconciler } from './reconciler.ts'
import type { Control } from './server.ts'
import { hostPortOf } from './state/host-port.ts'
import { type KernelObject, type Key, keyOf, type State, sameObject } from './state/object.ts'
import { textOf } from './state/text.ts'

export type QuestionFacts = {
  readonly version: string
  /** Milliseconds since 1970. */
  readonly startedAt: number
  readonly nodeName: string
  readonly store: string
  readonly health: Pick<Health, 'active' | 'blockers'>
  readonly reconciler: Pick<Reconciler, 'observed' | 'wantedBy' | 'differences'>
  readonly peers: Pick<Peers, 'leases' | 'skipped' | 'since' | 'isOwn' | 'others'>
  readonly attachments: Pick<Attachments, 'list' | 'vanished'>
  readonly outcomes: Pick<Outcomes, 'of' | 'ofContainer' | 'pods'>
  readonly reserved: () => Promise<readonly Reserved[]>
  /** `undefined` until this node holds a subnet. */
  readonly place: () => Place | undefined
}

/** Every question by its name. */
export function questions(facts: QuestionFacts): ReadonlyMap<string, Control> {
  return new Map<string, Control>([
    ['diff', async () => diffAnswer(facts.reconciler.differences())],
    ['nodes', async () => ({ leases: leases(facts) })],
    ['pods', async () => ({ pods: await pods(facts) })],
    ['status', async () => statusAnswer(statusFacts(facts))],
    ['why', async ([kind, name]) => why(facts, kind ?? '', name ?? '')]
  ])
}

function statusFacts(facts: QuestionFacts): StatusFacts {
  const { version, startedAt, nodeName: name, store, health, peers, attachments } = facts
  const place = facts.place()
  return {
    ...{ version, startedAt, name, store },
    peers: peers.others,
    pods: attachments.list().length,
    conditions: health.active(),
    ...(place && { backend: place.backend.type, network: place.conf.families, node: place.node })
  }
}

function why(facts: QuestionFacts, kind: string, name: string): WhyPodAnswer | WhyNodeAnswer {
  if (kind === 'pod' && name !== '') return whyPod(facts, name)
  if (kind === 'node' && name !== '') return whyNode(facts, name)
  throw new WeftError(
    'UNKNOWN_QUESTION',
    `weftd can't say why ${JSON.stringify(`${kind} ${name}`.trim())} is as it is`,
    'ask "why pod NAMESPACE/NAME" or "why node NAME"; use weftctl and weftd of one release'
  )
}

/** Our own lease first, then in the order of subnets; last what can't be read. */
function leases(facts: QuestionFacts): readonly LeaseAnswer[] {
  const { peers } = facts
  const understood = [...peers.leases.values()].map((lease) => leaseAnswer(facts, lease))
  const unreadable = [...peers.skipped]
    .filter(([key]) => !peers.leases.has(key))
    .map(([key, reason]) => unreadableAnswer(key, reason))
  const rank = (lease: Lease) => perFamily(lease.subnet)[0]?.[1].ip.value ?? 0n
  const ranks = new Map([...peers.leases].map(([key, lease]) => [key, peers.isOwn(lease) ? -1n : rank(lease)]))
  const order = ({ key: a }: LeaseAnswer, { key: b }: LeaseAnswer) => {
    const [left = 0n, right = 0n] = [ranks.get(a), ranks.get(b)]
    return left < right ? -1 : left > right ? 1 : 0
  }
  return [...understood.sort(order), ...unreadable]
}

const texts = <T>(values: PerFamily<T>, format: (value: T) => string): readonly string[] =>
  perFamily(values).map(([, value]) => format(value))

function leaseAnswer(facts: QuestionFacts, lease: Lease): LeaseAnswer {
  const { peers, nodeName, reconciler } = facts
  const key = leaseKey(lease)
  const [isOwn, since, skipped] = [peers.isOwn(lease), peers.since(key), peers.skipped.get(key)]
  const wanted = wantedFor(facts, lease)
  return {
    key,
    node: lease.node ?? (isOwn ? nodeName : ''),
    isOwn,
    subnet: texts(lease.subnet, formatPrefix),
    publicIp: texts(lease.publicIp, formatIp),
    backend: lease.backendType,
    reach: isOwn ? [] : wanted.flatMap((object) => reachBy(object, reconciler.observed, facts.place())),
    inKernel:
      (isOwn || wanted.length > 0) && wanted.every((object) => stateIn(reconciler.observed, object) === 'there'),
    ...(since !== undefined && { since: new Date(since).toISOString() }),
    ...(skipped === undefined ? leftOut(facts, lease) : { skipped })
  }
}

/** What is neither wrong nor used. */
function leftOut({ place, peers }: QuestionFacts, lease: Lease): { readonly skipped?: string } {
  const ours = place()?.backend.type
  if (ours === undefined) return { skipped: 'this node holds no subnet yet' }
  if (lease.backendType === ours || peers.isOwn(lease)) return {}
  return {
    skipped:
      lease.backendType === ''
        ? 'it is reserved for a node that has not come yet'
        : `its backend is ${lease.backendType}, and this network's is ${ours}`
  }
}

const unreadableAnswer = (key: string, skipped: string): LeaseAnswer => ({
  ...{ key, node: '', isOwn: false, subnet: [], publicIp: [], backend: '', reach: [], inKernel: false, skipped }
})

const wantedFor = ({ reconciler, peers }: QuestionFacts, lease: Lease): readonly KernelObject[] =>
  reconciler.wantedBy(peers.isOwn(lease) ? 'node' : leaseOwnerOf(leaseKey(lease)))

function reachBy(object: KernelObject, observed: State, place: Place | undefined): readonly ReachAnswer[] {
  if (object.kind !== 'route' || object.device === undefined) return []
  const { device } = object
  if (device === place?.node.device) return [{ how: 'direct', device }]
  const link = observed.get(`link ${device}` as Key)
  const form = link?.kind === 'link' ? link.form?.type : undefined
  const isKnown = form !== undefined && form !== 'other'
  return [{ how: isKnown ? form : (place?.backend.type ?? 'tunnel'), device }]
}

function stateIn(observed: State, object: KernelObject): ObjectAnswer['state'] {
  const have = observed.get(keyOf(object))
  if (have === undefined) return 'missing'
  return sameObject(object, have) ? 'there' : 'different'
}

function objectAnswer(observed: State, object: KernelObject): ObjectAnswer {
  const have = observed.get(keyOf(object))
  const state = stateIn(observed, object)
  return { text: textOf(object), state, ...(state === 'different' && have && { instead: textOf(have) }) }
}

/** Attachments, and reservations that are of none of them: of plugins that made the interface themselves, or of a namespace that went without a DEL. */
async function pods(facts: QuestionFacts): Promise<readonly PodAnswer[]> {
  const { vanished } = facts.attachments
  const known = facts.attachments.list()
  const others = new Map<string, PodAnswer>()
  for (const { network, containerId, ifname, ip } of await facts.reserved()) {
    if (known.some((each) => isOf(each, network, containerId, ifname))) continue
    const key = `${network} ${containerId} ${ifname}`
    const before = others.get(key)?.addresses ?? []
    others.set(key, {
      ...{ pod: podOfContainer(facts, containerId), container: containerId, interface: ifname, network, link: '' },
      ...{ addresses: [...before, formatIp(ip)], hostPorts: [], bandwidth: {} },
      netns: vanished.has(ownerOf({ network, containerId, ifname })) ? 'gone' : 'unknown'
    })
  }
  return [...known.map((each) => podAnswer(facts, each)), ...others.values()]
}

const isOf = (known: Known, network: string, containerId: string, ifname: string): boolean =>
  known.network === network && known.containerId === containerId && (ifname === '' || known.ifname === ifname)

/** The pod of which we remember a call for this container. */
function podOfContainer({ outcomes }: QuestionFacts, containerId: string): string {
  const found = outcomes.pods().find((pod) => outcomes.of(pod).some((call) => call.containerId === containerId))
  return found === undefined || found === containerId ? '' : found
}

function podAnswer({ reconciler }: QuestionFacts, known: Known): PodAnswer {
  const chained = limitsAsWished(known.link, reconciler.wantedBy(limitsOwnerOf(known))).bandwidth
  const { ingress, egress } = known.bandwidth ?? chained ?? {}
  const { namespace, name } = known.pod ?? { namespace: '', name: '' }
  return {
    pod: namespace === '' ? name : `${namespace}/${name}`,
    container: known.containerId,
    interface: known.ifname,
    network: known.network,
    link: known.link,
    addresses: known.addresses.map(formatIp),
    hostPorts: known.hostPorts?.map(hostPortAnswer) ?? chainedPorts(reconciler.wantedBy(portsOwnerOf(known))),
    bandwidth: {
      ...(ingress && { ingress: ingress.rateBitsPerSecond }),
      ...(egress && { egress: egress.rateBitsPerSecond })
    },
    // A namespace that ends takes its end of the pair along, and that the other.
    netns: reconciler.observed.has(`link ${known.link}` as Key) ? 'alive' : 'gone'
  }
}

const hostPortAnswer = ({ protocol, hostPort, containerPort, hostIp }: HostPort): HostPortAnswer => ({
  ...{ protocol, hostPort, containerPort },
  ...(hostIp && { hostIp: formatIp(hostIp) })
})

/** Those of a portmap behind our interface, read off what it wants; one that is of every address stands once for each family. */
const chainedPorts = (objects: readonly KernelObject[]): readonly HostPortAnswer[] =>
  objects.flatMap((object) => {
    const entry = hostPortOf(object)
    if (entry === undefined) return []
    const { protocol, port: hostPort, at, to } = entry
    return [{ protocol, hostPort, containerPort: to.port, ...(at && { hostIp: formatIp(at) }) }]
  })

/** `name` is `namespace/name`, a pod's name alone, an address, or a container's id or its beginning (six digits at least). */
function whyPod(facts: QuestionFacts, name: string): WhyPodAnswer {
  const { outcomes, attachments, reconciler, health } = facts
  const ip = parseIp(name)
  const isIt = (known: Known) =>
    isNamed(known, name) || (ip !== undefined && known.addresses.some((each) => same(each, ip)))
  const found = attachments.list().filter(isIt)
  const full = outcomes.pods().filter((pod) => pod === name || (!name.includes('/') && pod.endsWith(`/${name}`)))
  const ofFound = found.flatMap(({ containerId }) =>
    outcomes.ofContainer(containerId).filter((call) => call.containerId === containerId)
  )
  const ofName = full.flatMap((pod) => outcomes.of(pod))
  const calls = [...new Set([...ofName, ...ofFound, ...(isContainerId(name) ? outcomes.ofContainer(name) : [])])]
  const objects = (known: Known) =>
    [...ownersOf(known), firewallOwnerOf(known)].flatMap((owner) =>
      reconciler.wantedBy(owner).map((object) => objectAnswer(reconciler.observed, object))
    )
  const isUnknown = calls.length === 0 && found.length === 0
  return {
    pod: name,
    calls: calls.sort((a, b) => b.at - a.at).map(callAnswer),
    attachments: [
      ...found.map((known) => ({ ...podAnswer(facts, known), objects: objects(known) })),
      ...gone(facts, calls).map((each) => ({ ...each, objects: [] }))
    ],
    blocking: health.blockers('add').map(sentence),
    near: isUnknown ? nearTo(name, podNames(facts)) : [],
    rememberedSince: new Date(facts.startedAt).toISOString()
  }
}

/** Attachments of these calls' containers whose namespace has gone without a DEL. */
const gone = ({ attachments }: QuestionFacts, calls: readonly Outcome[]): readonly PodAnswer[] =>
  [...attachments.vanished.values()]
    .filter(({ containerId }) => calls.some((call) => call.containerId === containerId))
    .map(({ network, containerId, ifname }) => ({
      ...{ pod: '', container: containerId, interface: ifname, network, link: '', addresses: [] },
      ...{ hostPorts: [], bandwidth: {}, netns: 'gone' }
    }))

/** So few digits would fit too many containers. */
const isContainerId = (name: string): boolean => /^[\w.-]{6,}$/.test(name)

function isNamed({ pod, containerId }: Known, name: string): boolean {
  if (containerId === name || (isContainerId(name) && containerId.startsWith(name))) return true
  if (pod === undefined) return false
  return name === pod.name || name === `${pod.namespace}/${pod.name}`
}

const same = (a: Ip, b: Ip): boolean => a.family === b.family && a.value === b.value

const podNames = (facts: QuestionFacts): readonly string[] =>
  [
    ...new Set([...facts.attachments.list().map((known) => podAnswer(facts, known).pod), ...facts.outcomes.pods()])
  ].filter((name) => name !== '')

const callAnswer = ({ verb, plugin, network, containerId, ifname, at, seconds, failure }: Outcome) => ({
  ...{ verb, plugin, network, container: containerId, interface: ifname, at: new Date(at).toISOString(), seconds },
  ...(failure && { failure })
})

/** The closest, and those that contain the word. */
function nearTo(name: string, names: readonly string[]): readonly string[] {
  const word = name.slice(name.lastIndexOf('/') + 1).toLowerCase()
  const close = nearest(name, names)
  const containing = names.filter((each) => word !== '' && each.toLowerCase().includes(word))
  return [...new Set([...(close === undefined ? [] : [close]), ...containing])].slice(0, 5)
}

/** `name` is a node's name, one of its public addresses, its subnet, the lease's key, or an address in the subnet. */
function whyNode(facts: QuestionFacts, name: string): WhyNodeAnswer {
  const { reconciler, peers, health } = facts
  const ip = parseIp(name)
  const all = leases(facts)
  const found = all.filter((each) => namesOf(each).includes(name) || holds(peers.leases.get(each.key), ip))
  const objects = (key: string) => {
    const lease = peers.leases.get(key)
    return lease === undefined ? [] : wantedFor(facts, lease).map((object) => objectAnswer(reconciler.observed, object))
  }
  return {
    name,
    leases: found.map((each) => ({ ...each, objects: objects(each.key) })),
    conditions: health.active().map(sentence),
    near: found.length > 0 ? [] : nearTo(name, all.flatMap(namesOf))
  }
}

const namesOf = ({ key, node, subnet, publicIp }: LeaseAnswer): readonly string[] => [
  ...(node === '' ? [] : [node]),
  ...publicIp,
  ...subnet,
  key
]

const holds = (lease: Lease | undefined, ip: Ip | undefined): boolean =>
  lease !== undefined && ip !== undefined && perFamily(lease.subnet).some(([, subnet]) => contains(subnet, ip))
