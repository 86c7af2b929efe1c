// Rules that the reference plugins made with iptables for a container, before Weft: removed at its DEL. Their chains are
// named after the network and the container.
import { createHash } from 'node:crypto'
import { reasonOf } from '../base/error.ts'
import type { PodContext } from './context.ts'

type Container = { readonly network: string; readonly containerId: string }

/** Characters of a name of iptables: the reference cuts the hash there. */
const LONGEST = 28

function chainOf(prefix: string, { network, containerId }: Container): string {
  const hash = createHash('sha512').update(`${network}${containerId}`).digest('hex')
  return `${prefix}${hash}`.slice(0, LONGEST)
}

/** portmap's, for host ports. */
export const hostPortChain = (container: Container): string => chainOf('CNI-DN-', container)
/** That of bridge and ptp with ipMasq. */
export const masqueradeChain = (container: Container): string => chainOf('CNI-', container)

/** Never throws: an address that is free again is worth more than a rule to nowhere, which is logged. */
export async function removeReferenceChain(context: PodContext, chain: string, because: string): Promise<void> {
  try {
    await context.kernel.removeOtherChains([chain])
  } catch (error) {
    context.log.warn({ chain, because, reason: reasonOf(error) }, "a chain of the reference plugins can't be removed")
  }
}
