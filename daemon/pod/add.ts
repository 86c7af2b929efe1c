// ADD: reserves addresses and connects the interface; a failed one leaves nothing behind.
import type { VethAttachment } from '../../plugins/attachment.ts'
import type { AttachmentResult } from '../attachment/result.ts'
import { allocate } from './allocate.ts'
import { connect, type Prepared, prepareConnect } from './connect.ts'
import type { PodContext } from './context.ts'
import { disconnect, undo } from './disconnect.ts'
import { openSandbox } from './netns.ts'
import { release } from './release.ts'
import { readResolvConf } from './resolv-conf.ts'
import { timed } from './timing.ts'

/** Errors: WeftError, conditions that block ADD among them. */
export async function add(context: PodContext, attachment: VethAttachment): Promise<AttachmentResult> {
  const asked = context.now()
  return context.attachments.inTurn(attachment, () => {
    context.timings('ADD', 'queue', (context.now() - asked) / 1000)
    return attach(context, attachment)
  })
}

async function attach(context: PodContext, attachment: VethAttachment): Promise<AttachmentResult> {
  const prepared = prepareConnect(context, attachment)
  try {
    return await reserveAndConnect(context, await withDns(context, attachment), prepared)
  } catch (error) {
    prepared.releasePorts()
    throw error
  }
}

async function reserveAndConnect(
  context: PodContext,
  attachment: VethAttachment,
  prepared: Prepared
): Promise<AttachmentResult> {
  const { ipam } = attachment
  using sandbox = await timed(context, 'ADD', 'sandbox', () => openSandbox(context, attachment))
  const addresses =
    ipam === undefined
      ? (attachment.ipamResult?.addresses ?? [])
      : await timed(context, 'ADD', 'reserve', () => allocate(context, attachment, ipam, prepared.place))
  try {
    return await connect(context, attachment, addresses, prepared, sandbox)
  } catch (error) {
    // In this order: as long as the link may exist, its address stays reserved.
    await undo(
      context,
      attachment,
      () => disconnect(context, attachment, 'ADD'),
      () => release(context, attachment, ipam?.dataDir)
    )
    throw error
  }
}

/** DNS in the configuration wins over a file that it names. */
async function withDns(context: PodContext, attachment: VethAttachment): Promise<VethAttachment> {
  const file = attachment.ipam?.resolvConf
  if (file === undefined || attachment.dns !== undefined) return attachment
  return { ...attachment, dns: await readResolvConf(context, file) }
}
