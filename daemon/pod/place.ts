// What an attachment needs to know of the node: its subnet and MTU, unless the attachment is independent of them.
import type { Attachment } from '../../plugins/attachment.ts'
import { WeftError } from '../base/error.ts'
import type { ConditionCode } from '../health/conditions.ts'
import type { PodContext, PodPlace } from './context.ts'

/** Conditions that only an attempt can end: an ADD is tried although they are active. */
const endedByTrying: readonly ConditionCode[] = ['POOL_EXHAUSTED', 'STATE_UNWRITABLE']

/** Errors: the condition that blocks ADD; STARTING. */
export function placeForAdd(context: PodContext, attachment: Attachment): PodPlace {
  if (attachment.isStandalone) return placeOf(context, attachment)
  const blocking = context.health.blockers('add').find(({ code }) => !endedByTrying.includes(code))
  if (blocking !== undefined) throw new WeftError(blocking.code, `${blocking.title}: ${blocking.detail}`, blocking.cure)
  return placeOf(context, attachment)
}

/** Bytes, where the configuration names none and the node's do not apply: the kernel's own choice for Ethernet. */
const DEFAULT_MTU = 1500

/** Errors: STARTING. */
export function placeOf(context: PodContext, attachment: Attachment): PodPlace {
  if (attachment.isStandalone) return { node: { ...context.self, subnet: {} }, mtu: DEFAULT_MTU, clusterNetworks: {} }
  const place = context.place()
  if (place === undefined)
    throw new WeftError('STARTING', 'weftd is starting: this node has no subnet yet', 'wait; the runtime retries')
  return place
}
