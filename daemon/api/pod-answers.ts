// Answers about pods for weftctl: attachments, other holders of addresses, and recent calls.
import { formatIp, parseIp, sameIp } from '../../ipam/address.ts'
import type { HostPort } from '../../plugins/attachment.ts'
import { limitsOwnerOf, ownerOf, ownersOf, portsOwnerOf } from '../attachment/identity.ts'
import type { Outcome } from '../cni/call-history.ts'
import { sentence } from '../health/conditions.ts'
import type { Known } from '../pod/attachments.ts'
import { limitsAsConfigured } from '../pod/recovery/readback.ts'
import { waitsForItsDevice } from '../state/difference.ts'
import { hostPortOf } from '../state/host-port.ts'
import type { KernelObject, Key } from '../state/object.ts'
import type { HostPortAnswer, PodAnswer, WhyPodAnswer } from './answers.ts'
import { nearTo, objectAnswer, type QueryContext } from './query-context.ts'

/**
 * Attachments, and reservations without one: of plugins that made the interface themselves, or of a namespace deleted
 * without a DEL.
 */
export async function pods(context: QueryContext): Promise<readonly PodAnswer[]> {
  const { vanished } = context.attachments
  const known = context.attachments.list()
  const others = new Map<string, PodAnswer>()
  for (const { network, containerId, ifname, ip } of await context.reserved()) {
    if (known.some((each) => isOf(each, network, containerId, ifname))) continue
    const key = `${network} ${containerId} ${ifname}`
    const before = others.get(key)?.addresses ?? []
    others.set(key, {
      ...{ pod: podOfContainer(context, containerId), container: containerId, interface: ifname, network, link: '' },
      ...{ addresses: [...before, formatIp(ip)], hostPorts: [], bandwidth: {} },
      netns: vanished.has(ownerOf({ network, containerId, ifname })) ? 'gone' : 'unknown'
    })
  }
  return [...known.map((each) => podAnswer(context, each)), ...others.values()]
}

const isOf = (known: Known, network: string, containerId: string, ifname: string): boolean =>
  known.network === network && known.containerId === containerId && (ifname === '' || known.ifname === ifname)

/** The pod of a recorded call for this container. */
function podOfContainer({ outcomes }: QueryContext, containerId: string): string {
  const found = outcomes.pods().find((pod) => outcomes.of(pod).some((call) => call.containerId === containerId))
  return found === undefined || found === containerId ? '' : found
}

function podAnswer({ reconciler }: QueryContext, known: Known): PodAnswer {
  const chained = limitsAsConfigured(known.link, reconciler.wantedBy(limitsOwnerOf(known))).bandwidth
  const { ingress, egress } = known.bandwidth ?? chained ?? {}
  return {
    pod: nameOfPod(known),
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
    // When a namespace is deleted, both ends of the pair go.
    netns: reconciler.observed.has(`link ${known.link}` as Key) ? 'alive' : 'gone'
  }
}

/** `namespace/name`; empty where the runtime named no pod. */
export function nameOfPod({ pod }: Known): string {
  const { namespace, name } = pod ?? { namespace: '', name: '' }
  return namespace === '' ? name : `${namespace}/${name}`
}

const hostPortAnswer = ({ protocol, hostPort, containerPort, hostIp }: HostPort): HostPortAnswer => ({
  ...{ protocol, hostPort, containerPort },
  ...(hostIp && { hostIp: formatIp(hostIp) })
})

/**
 * Host ports of a chained portmap, read from its desired objects; a port of all addresses is listed once per family.
 */
const chainedPorts = (objects: readonly KernelObject[]): readonly HostPortAnswer[] =>
  objects.flatMap((object) => {
    const entry = hostPortOf(object)
    if (entry === undefined) return []
    const { protocol, port: hostPort, at, to } = entry
    return [{ protocol, hostPort, containerPort: to.port, ...(at && { hostIp: formatIp(at) }) }]
  })

/** By all the names that `whyPod` accepts. */
export function attachmentsNamed({ attachments }: QueryContext, name: string): readonly Known[] {
  const ip = parseIp(name)
  return attachments
    .list()
    .filter((known) => isNamed(known, name) || (ip !== undefined && known.addresses.some((each) => sameIp(each, ip))))
}

/**
 * `name` is `namespace/name`, a pod's name alone, an address, or a container's id or its beginning (six digits at
 * least).
 */
export function whyPod(context: QueryContext, name: string): WhyPodAnswer {
  const { outcomes, reconciler, health } = context
  const found = attachmentsNamed(context, name)
  const full = outcomes.pods().filter((pod) => pod === name || (!name.includes('/') && pod.endsWith(`/${name}`)))
  const ofFound = found.flatMap(({ containerId }) =>
    outcomes.ofContainer(containerId).filter((call) => call.containerId === containerId)
  )
  const ofName = full.flatMap((pod) => outcomes.of(pod))
  const calls = [...new Set([...ofName, ...ofFound, ...(isContainerId(name) ? outcomes.ofContainer(name) : [])])]
  const objects = (known: Known) =>
    ownersOf(known)
      .flatMap((owner) => reconciler.wantedBy(owner))
      .filter((object) => !waitsForItsDevice(object, reconciler.observed, reconciler.desired))
      .map((object) => objectAnswer(reconciler.observed, object))
  const isUnknown = calls.length === 0 && found.length === 0
  return {
    pod: name,
    calls: calls.sort((a, b) => b.at - a.at).map(callAnswer),
    attachments: [
      ...found.map((known) => ({ ...podAnswer(context, known), objects: objects(known) })),
      ...gone(context, calls).map((each) => ({ ...each, objects: [] }))
    ],
    blocking: health.blockers('add').map(sentence),
    near: isUnknown ? nearTo(name, podNames(context)) : [],
    rememberedSince: new Date(context.startedAt).toISOString()
  }
}

/** Attachments of these calls' containers whose namespace was deleted without a DEL. */
const gone = ({ attachments }: QueryContext, calls: readonly Outcome[]): readonly PodAnswer[] =>
  [...attachments.vanished.values(), ...attachments.released.values()]
    .filter(({ containerId }) => calls.some((call) => call.containerId === containerId))
    .map(({ network, containerId, ifname }) => ({
      ...{ pod: '', container: containerId, interface: ifname, network, link: '', addresses: [] },
      ...{ hostPorts: [], bandwidth: {}, netns: 'gone' }
    }))

/** Fewer than six digits would match too many containers. */
const isContainerId = (name: string): boolean => /^[\w.-]{6,}$/.test(name)

function isNamed({ pod, containerId }: Known, name: string): boolean {
  if (containerId === name || (isContainerId(name) && containerId.startsWith(name))) return true
  if (pod === undefined) return false
  return name === pod.name || name === `${pod.namespace}/${pod.name}`
}

const podNames = (context: QueryContext): readonly string[] =>
  [
    ...new Set([
      ...context.attachments.list().map((known) => podAnswer(context, known).pod),
      ...context.outcomes.pods()
    ])
  ].filter((name) => name !== '')

const callAnswer = ({ verb, plugin, network, containerId, ifname, at, seconds, failure, isFurther }: Outcome) => ({
  ...{ verb, plugin, network, container: containerId, interface: ifname, at: new Date(at).toISOString(), seconds },
  ...(failure && { failure }),
  ...(isFurther && { isFurther })
})
