// How a pod is connected at this moment: bridge or routed mode, MTU, masquerading.
import { perFamily } from '../../ipam/address.ts'
import type { VethAttachment } from '../../plugins/attachment.ts'
import type { Wiring } from '../attachment/objects.ts'
import { nodeMasquerades } from '../firewall/masquerade.ts'
import { linkNamed } from '../state/object.ts'
import type { PodContext, PodPlace } from './context.ts'

/**
 * An existing bridge of the configured name means bridge mode where the configuration names none: a node taken over
 * from flannel keeps its mode.
 */
export function wiringOf(context: PodContext, attachment: VethAttachment, place: PodPlace): Wiring {
  const link = linkNamed(context.host.observed, attachment.interface.bridge)
  const bridge = link?.form?.type === 'bridge' ? link : undefined
  const mode = attachment.interface.mode ?? (bridge === undefined ? context.defaultMode : 'bridge')
  return {
    mode,
    mtu: attachment.interface.mtu ?? place.mtu,
    clusterNetworks: perFamily(place.clusterNetworks).map(([, network]) => network),
    ...(nodeMasquerades(context.host.observed) ? { masquerades: true as const } : {}),
    ...(mode === 'bridge' && bridge !== undefined ? { bridge } : {})
  }
}
