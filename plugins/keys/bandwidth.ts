// Throughput limits: the capability `bandwidth` (CNI conventions), and the same four keys in the configuration with the
// subnets they apply to.
import type { Bandwidth, RateLimit } from '../attachment.ts'
import { descend, entries, type Field, FieldError, isAbsent, member, wholeNumber } from '../cni/field.ts'
import { prefix } from './readers.ts'

const KEYS = ['ingressRate', 'ingressBurst', 'egressRate', 'egressBurst'] as const

/**
 * The kernel counts a burst in bytes with 32 bits, and the reference refuses the largest value: at most 34,359,738,359
 * bits.
 */
const MOST_BURST_BITS = 8 * (2 ** 32 - 1) - 1
/** One byte per second. */
const LEAST_RATE_BITS = 8

/**
 * Limits in the configuration replace all of the runtime's, as in the reference. `undefined`: no limit. Errors:
 * FieldError.
 */
export function bandwidthOf(root: Field): Bandwidth | undefined {
  const isWritten = KEYS.some((key) => !isAbsent(member(root, key)))
  const from = isWritten ? root : descend(root, 'runtimeConfig', 'bandwidth')
  const ingress = limit(member(from, 'ingressRate'), member(from, 'ingressBurst'))
  const egress = limit(member(from, 'egressRate'), member(from, 'egressBurst'))
  const only = onlyFor(from) ?? onlyFor(root)
  if (ingress === undefined && egress === undefined) return undefined
  return {
    ...(ingress === undefined ? {} : { ingress }),
    ...(egress === undefined ? {} : { egress }),
    ...(only === undefined ? {} : { only })
  }
}

/** Each is a filter, and the kernel tries them one by one for every packet. */
const MOST_SUBNETS = 256

/**
 * The reference has these keys since release 1.5. Unlike there, subnets in the configuration also apply to limits from
 * the runtime: they are meant for whatever limits the pod has.
 */
function onlyFor(from: Field): Bandwidth['only'] {
  const [these, others] = [member(from, 'shapedSubnets'), member(from, 'unshapedSubnets')]
  const [shaped, unshaped] = [entries(these).map(prefix), entries(others).map(prefix)]
  if (shaped.length > 0 && unshaped.length > 0) throw new FieldError(others, `cannot be combined with ${these.path}`)
  for (const [field, list] of [
    [these, shaped],
    [others, unshaped]
  ] as const)
    if (list.length > MOST_SUBNETS) throw new FieldError(field, `must have at most ${MOST_SUBNETS} entries`)
  if (shaped.length > 0) return { limits: 'these', subnets: shaped }
  return unshaped.length > 0 ? { limits: 'others', subnets: unshaped } : undefined
}

function limit(rate: Field, burst: Field): RateLimit | undefined {
  const rateBitsPerSecond = wholeNumber(rate, 0, Number.MAX_SAFE_INTEGER) ?? 0
  const burstBits = wholeNumber(burst, 0, MOST_BURST_BITS) ?? 0
  if (rateBitsPerSecond === 0 && burstBits === 0) return undefined
  if (burstBits === 0) throw new FieldError(rate, `must come together with ${burst.path}`)
  if (rateBitsPerSecond === 0) throw new FieldError(burst, `must come together with ${rate.path}`)
  if (rateBitsPerSecond < LEAST_RATE_BITS)
    throw new FieldError(rate, `must be 0 (no limit) or at least ${LEAST_RATE_BITS} bits per second`)
  return { rateBitsPerSecond, burstBits }
}
