// The range sets that an attachment's addresses come from.
import { perFamily } from '../../ipam/address.ts'
import { RangeRuleError, type RangeSet, rangeSets } from '../../ipam/pool.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'
import type { PodPlace } from './context.ts'

/** Those of the configuration, else this node's subnets, one set each. Errors: RANGE_INVALID. */
export function rangeSetsOf(
  { ipam, network }: Pick<Attachment, 'ipam' | 'network'>,
  { node }: Pick<PodPlace, 'node'>
): readonly RangeSet[] {
  if (ipam === undefined) return []
  try {
    return rangeSets(ipam.ranges.length > 0 ? ipam.ranges : perFamily(node.subnet).map(([, subnet]) => [{ subnet }]))
  } catch (cause) {
    if (!(cause instanceof RangeRuleError)) throw cause
    throw new WeftError(
      'RANGE_INVALID',
      `the address ranges of network ${network} are not valid: ${cause.message}`,
      'correct ipam.ranges in the CNI configuration',
      { cause }
    )
  }
}
