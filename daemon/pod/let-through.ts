// Packets of an attachment's addresses pass this host: our own chain for their subnet, and answers to what other programs drop.
import type { Prefix } from '../../ipam/address.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { subnetChain } from '../firewall/subnet-chain.ts'
import { firewallOwnerOf, type Identity, ownerOf } from './names.ts'
import { failureIn, type PodSurroundings } from './surroundings.ts'

/** `forwards` empty: what was let through for this attachment is so no more. Errors: the kernel's. */
export async function letThrough(
  around: PodSurroundings,
  attachment: Identity & Pick<Attachment, 'because'>,
  forwards: readonly Prefix[]
): Promise<void> {
  const { because } = attachment
  const chains = forwards.map((prefix) => ({ ...subnetChain('forward', prefix), because }))
  const { forwarded } = around.attachments
  const { network, containerId, ifname } = attachment
  if (chains.length === 0) forwarded.delete(ownerOf(attachment))
  else forwarded.set(ownerOf(attachment), { network, containerId, ifname })
  const failure = failureIn(await around.host.want(firewallOwnerOf(attachment), chains))
  if (failure !== undefined) throw failure.error
  await around.answerForeignDrops()
}
