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
import type { AttachmentResult, InterfaceChanges } from '../../attachment/result.ts'
import { WeftError } from '../../base/error.ts'
import { failureIn } from '../../state/kernel.ts'
import { type KernelObject, type Key, keyOf, type Link, linkNamed } from '../../state/object.ts'
import { ifbName } from '../../state/ownership.ts'
import { allSteps } from '../all-steps.ts'
import { differencesIn, refuseDifferences } from '../check.ts'
import type { PodContext } from '../context.ts'
import type { Listed } from '../gc.ts'

type Interfaces = Pick<AttachmentResult, 'interfaces'>

/** The ifb that shapes what the attachment sends. */
const ifbOf = (who: Identity): string => ifbName(hostName(who))

/**
 * Reports the ifb that shapes what the container sends. Errors: INTERFACE_MISSING, the kernel's; nothing is left behind
 * then.
 */
export async function limit(
  context: PodContext,
  attachment: ChainedAttachment,
  previous: Interfaces
): Promise<InterfaceChanges> {
  if (attachment.bandwidth === undefined) return {}
  const link = hostEnd(context, attachment, previous)
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
export function checkLimits(context: PodContext, attachment: ChainedAttachment, previous: Interfaces): void {
  if (attachment.bandwidth === undefined) return
  const link = hostEnd(context, attachment, previous)
  const wrong = differencesIn(wantedOn(link, attachment), context.host.observed, 'on the host')
  refuseDifferences(`the limits of ${attachment.because} are not as they were set up`, wrong)
}

/**
 * The token bucket towards the container goes with its device: removing it alone would make the caller wait for a grace
 * period.
 */
export async function unlimit(context: PodContext, who: Identity): Promise<void> {
  const ifb = linkNamed(context.host.observed, ifbOf(who))
  const isOurs = ifb?.form?.type === 'ifb' && mayBeOf(who, ifb.alias)
  const keys: readonly Key[] = isOurs ? [keyOf(ifb)] : []
  const owner = limitsOwnerOf(who)
  context.attachments.forgetLimits(who)
  context.host.keep(owner, [])
  const failure = failureIn(await context.host.want(owner, [], keys))
  if (failure !== undefined) throw failure.error
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
  const isListed = (who: Identity) =>
    valid.some(({ containerId, ifname }) => containerId === who.containerId && ifname === who.ifname)
  const gone = [...existing, ...limited].filter((who) => !isListed(who))
  await allSteps(gone.map((who) => () => unlimit(context, who)))
}

const wantedOn = (link: Link, attachment: ChainedAttachment): readonly KernelObject[] =>
  bandwidthObjects(
    { ...link, alias: aliasOf(attachment, attachment.pod) },
    attachment.bandwidth,
    ifbOf(attachment)
  ).map((object) => ({ ...object, because: attachment.because }))

/** The first end of a veth pair on this host that the plugin before has reported. */
export function hostEnd({ host }: PodContext, { ifname, plugin }: ChainedAttachment, previous: Interfaces): Link {
  const onHost = previous.interfaces.filter(({ sandbox }) => !sandbox)
  for (const { name } of onHost) {
    const link = linkNamed(host.observed, name)
    if (link?.form?.type === 'veth') return link
  }
  throw new WeftError(
    'INTERFACE_MISSING',
    `prevResult names no host end of a veth pair for ${ifname}; links of this host in it: ${onHost.map(({ name }) => name).join(', ') || 'none'}`,
    `chain ${plugin} behind a plugin that makes a veth pair, as weft, bridge and ptp do`
  )
}
