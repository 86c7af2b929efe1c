// Throughput limits of an interface that another plugin made, Weft's or not: bandwidth's ADD, CHECK, DEL and GC.

import type { ChainedAttachment } from '../../../plugins/attachment.ts'
import { bandwidthObjects } from '../../attachment/bandwidth.ts'
import {
  aliasOf,
  hostName,
  type Identity,
  ifbMac,
  limitsOwnerOf,
  mayBeOf,
  parseAlias
} from '../../attachment/identity.ts'
import type { InterfaceChanges } from '../../attachment/result.ts'
import { WeftError } from '../../base/error.ts'
import { failureIn, removalFailureIn } from '../../state/kernel.ts'
import { type KernelObject, type Key, keyOf, type Link, linkNamed } from '../../state/object.ts'
import { ifbName } from '../../state/ownership.ts'
import { allSteps } from '../all-steps.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import { isListed, type Listed } from '../gc.ts'
import { openSandbox } from '../netns.ts'

/** The ifb that shapes what the attachment sends. */
const ifbOf = (who: Identity): string => ifbName(hostName(who))

/**
 * Reports the ifb that shapes what the container sends. Errors: INTERFACE_MISSING, the kernel's; nothing is left behind
 * then.
 */
export async function limit(context: PodContext, attachment: ChainedAttachment): Promise<InterfaceChanges> {
  if (attachment.bandwidth === undefined) return {}
  const link = await hostEnd(context, attachment)
  const owner = limitsOwnerOf(attachment)
  const failure = failureIn(await context.host.want(owner, wantedOn(link, attachment)))
  if (failure !== undefined) {
    await context.host.want(owner, [])
    throw failure.error
  }
  context.attachments.limited.set(link.name, attachment)
  if (attachment.bandwidth.egress === undefined) return {}
  const name = ifbOf(attachment)
  return { added: [{ name, mac: ifbMac(name), ...(link.mtu && { mtu: link.mtu }) }] }
}

/** Errors: DIFFERENT with one line per difference; INTERFACE_MISSING. */
export async function checkLimits(context: PodContext, attachment: ChainedAttachment): Promise<void> {
  if (attachment.bandwidth === undefined) return
  const link = await hostEnd(context, attachment)
  const wrong = differencesIn(wantedOn(link, attachment), context.host.observed, 'on the host')
  refuseDifferences(`the limits of ${attachment.because} are not as they were set up`, wrong)
}

/**
 * The token bucket towards the container goes with its device: removing it alone would make the caller wait for a grace
 * period. The redirect does not stay: to an ifb that is gone it would drop all that the container sends.
 */
export async function unlimit(context: PodContext, who: Identity): Promise<void> {
  const ifb = linkNamed(context.host.observed, ifbOf(who))
  const isOurs = ifb?.form?.type === 'ifb' && mayBeOf(who, ifb.alias)
  const keys: readonly Key[] = isOurs ? [keyOf(ifb)] : []
  const owner = limitsOwnerOf(who)
  context.attachments.forgetLimits(who)
  const redirects = [...context.host.observed.values()].filter(
    (object) => object.kind === 'qdisc' && object.discipline.type === 'redirect' && object.discipline.to === ifbOf(who)
  )
  context.host.keep(owner, [])
  const failure =
    removalFailureIn(await context.host.discard(redirects)) ??
    removalFailureIn(await context.host.want(owner, [], keys))
  if (failure !== undefined) throw failure
}

/** Removes the limits of a network's containers that the runtime no longer lists. */
export async function collectLimits(
  context: PodContext,
  { network }: ChainedAttachment,
  valid: readonly Listed[]
): Promise<void> {
  const existing = [...context.host.observed.values()].flatMap((object) => {
    const who = object.kind === 'link' && object.form?.type === 'ifb' ? parseAlias(object.alias) : undefined
    return who?.network === network && who.ifname !== undefined ? [{ ...who, ifname: who.ifname }] : []
  })
  const limited = [...context.attachments.limited.values()].filter((who) => who.network === network)
  const gone = [...existing, ...limited].filter((who) => !isListed(valid, who))
  await allSteps(gone.map((who) => () => unlimit(context, who)))
}

const wantedOn = (link: Link, attachment: ChainedAttachment): readonly KernelObject[] =>
  bandwidthObjects(
    { ...link, alias: aliasOf(attachment, attachment.pod) },
    attachment.bandwidth,
    ifbOf(attachment)
  ).map((object) => ({ ...object, because: attachment.because }))

/**
 * The host's end of the pair whose other end is the container's interface. The kernel says which: a result may name
 * several links of this host, also other containers'. Errors: INTERFACE_MISSING, SANDBOX_GONE, SANDBOX_INVALID.
 */
export async function hostEnd(context: PodContext, attachment: ChainedAttachment): Promise<Link> {
  const { ifname, plugin, sandbox: path } = attachment
  using sandbox = await openSandbox(context, attachment)
  const inside = linkNamed(await sandbox.read(), ifname)
  const isOther = (link: KernelObject): link is Link =>
    link.kind === 'link' &&
    link.form?.type === 'veth' &&
    link.index === inside?.peerIndex &&
    link.peerIndex === inside?.index
  const found = inside?.peerIndex === undefined ? undefined : [...context.host.observed.values()].find(isOther)
  if (found !== undefined) return found
  const why =
    inside === undefined
      ? `there is no interface ${ifname} in ${path}, so no veth pair`
      : `${ifname} in ${path} is no end of a veth pair whose other end is on this host`
  throw new WeftError(
    'INTERFACE_MISSING',
    why,
    `chain ${plugin} behind a plugin that makes a veth pair, as weft, bridge and ptp do`
  )
}
