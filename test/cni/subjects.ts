// The plugins that put a pod on a bridge, each with the keys for the same network: what is true of one must be true of the other.
import type { Json } from '../lab/cni.ts'

export type Subject = {
  readonly type: string
  /** Keys of a network with gateway and these range sets. */
  readonly network: (...subnets: readonly string[]) => Json
}

const sets = (subnets: readonly string[]) => subnets.map((subnet) => [{ subnet }])
export const subjects: readonly Subject[] = [
  { type: 'weft', network: (...subnets) => ({ mode: 'bridge', bridge: 'br1', ipam: { ranges: sets(subnets) } }) },
  {
    type: 'bridge',
    network: (...subnets) => ({
      ...{ bridge: 'br1', isDefaultGateway: true, ipMasq: true },
      ipam: { type: 'host-local', ranges: sets(subnets) }
    })
  }
]
