// Host ports of an interface that another plugin made, Weft's or not: portmap's ADD, CHECK and DEL.
import { type Ip, perFamily } from '../../../ipam/address.ts'
import type { ChainedAttachment, PortOptions } from '../../../plugins/attachment.ts'
import { hostName, mayBeOf, portMark, portsOwnerOf } from '../../attachment/identity.ts'
import { type AttachmentResult, addressesOf } from '../../attachment/result.ts'
import { WeftError } from '../../base/error.ts'
import {
  conditionedPortBase,
  hostPortBase,
  hostPortDevice,
  hostPorts,
  translatedPods,
  translationBase
} from '../../firewall/host-ports.ts'
import { elementComment, elementsOf } from '../../state/host-port.ts'
import { failureIn } from '../../state/kernel.ts'
import { type KernelObject, type Link, linkNamed } from '../../state/object.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import { hostPortChain, removeReferenceChain } from '../reference-rules.ts'
import { releaseOwned } from './ownership.ts'

/** Errors: PORT_TAKEN, ADDRESS_MISSING, the kernel's; nothing is left behind then. */
export async function mapPorts(
  context: PodContext,
  attachment: ChainedAttachment,
  options: PortOptions,
  previous: AttachmentResult
): Promise<void> {
  if (attachment.hostPorts === undefined) return
  const owner = portsOwnerOf(attachment)
  const { ports, shared } = context.attachments
  const wanted = await wantedFor(context, attachment, options, previous)
  const giveBack = ports.claim(owner, attachment.because, attachment.hostPorts)
  const outcomes = await context.host.wantAll([shared.with(wanted.shared), [owner, wanted.own]])
  const failure = failureIn(outcomes, [...wanted.shared, ...wanted.own])
  if (failure === undefined) return
  giveBack()
  await context.host.want(owner, [])
  throw failure.error
}

/** Errors: DIFFERENT with one line per difference. */
export async function checkPorts(
  context: PodContext,
  attachment: ChainedAttachment,
  options: PortOptions,
  previous: AttachmentResult
): Promise<void> {
  if (attachment.hostPorts === undefined) return
  const { shared, own } = await wantedFor(context, attachment, options, previous)
  const isCompared = ({ kind }: KernelObject) => kind === 'nft-element' || kind === 'nft-chain' || kind === 'nft-set'
  const wrong = differencesIn([...shared, ...own].filter(isCompared), context.host.observed, 'on the host')
  refuseDifferences(`the host ports of ${attachment.because} are not as they were set up`, wrong)
}

/** Ports that were never mapped are no error. */
export async function unmapPorts(context: PodContext, attachment: ChainedAttachment): Promise<void> {
  const mark = portMark(attachment)
  // Mapped by the reference's portmap, before Weft.
  const isForeign = attachment.hostPorts !== undefined && elementsOf(mark, context.host.observed).length === 0
  await releaseOwned(context, mark)
  if (isForeign) await removeReferenceChain(context, hostPortChain(attachment), attachment.because)
}

type Wanted = { readonly shared: readonly KernelObject[]; readonly own: readonly KernelObject[] }

async function wantedFor(
  context: PodContext,
  attachment: ChainedAttachment,
  { translates, conditions = {} }: PortOptions,
  previous: AttachmentResult
): Promise<Wanted> {
  const { because, hostPorts: mappings = [], ifname } = attachment
  const ips = addressesOf(previous, ifname).map(({ prefix }) => prefix.ip)
  if (ips.length === 0)
    throw new WeftError(
      'ADDRESS_MISSING',
      `prevResult has no address of ${ifname}: host ports of ${because} have no target`,
      `chain ${attachment.plugin} behind a plugin that gives ${ifname} an address`
    )
  const mark = portMark(attachment)
  const elements = hostPorts(mappings, ips, mark, because, conditions)
  if (elements.length === 0) return { shared: [], own: [] }
  const device = translates === 'nothing' ? undefined : await deviceTo(context, ips)
  // A veth is the container's own and goes with it. Any other device has others behind it, or may not be observed yet:
  // it keeps route_localnet and its guard as long as it exists.
  const isShared = device !== undefined && linkNamed(context.host.observed, device)?.form?.type !== 'veth'
  const ofAll = translates === 'all'
  const own = [
    ...elements,
    ...(ofAll ? translatedPods(ips, mark, because) : []),
    ...(device === undefined || isShared ? [] : hostPortDevice(device, elementComment(mark, because))),
    ...hairpin(context, attachment)
  ]
  return {
    shared: [
      ...hostPortBase(),
      ...perFamily(conditions).flatMap(([family, list]) => conditionedPortBase(family, list)),
      ...(ofAll ? translationBase() : []),
      ...(isShared ? hostPortDevice(device) : [])
    ],
    own: own.map((object) => ({ ...object, because }))
  }
}

/** The device through which this host reaches the container: like the reference, by a route look-up. */
async function deviceTo(context: PodContext, ips: readonly Ip[]): Promise<string | undefined> {
  for (const ip of [...ips].sort((a, b) => a.family - b.family)) {
    const route = await context.kernel.routeTo(ip)
    if (route !== undefined) return route.device
  }
  return undefined
}

/**
 * With br_netfilter the bridge itself returns a pod's packets to its own host port through the port they came in by.
 * Ports that another program made are left alone.
 */
function hairpin({ host: { observed } }: PodContext, attachment: ChainedAttachment): readonly Link[] {
  const link = linkNamed(observed, hostName(attachment))
  if (link?.form?.type !== 'veth' || !link.master || !mayBeOf(attachment, link.alias)) return []
  return [{ kind: 'link', name: link.name, form: { type: 'veth' }, up: true, hairpin: true }]
}
