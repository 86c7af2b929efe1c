// How a pod is connected at this moment: bridge or routed mode, MTU, masquerading.
import { contains, perFamily } from '../../ipam/address.ts'
import type { VethAttachment } from '../../plugins/attachment.ts'
import type { Mode, Wiring } from '../attachment/objects.ts'
import { nodeMasquerades } from '../firewall/masquerade.ts'
import { type Link, linkNamed } from '../state/object.ts'
import type { PodContext, PodPlace } from './context.ts'

/**
 * An existing bridge of the configured name means bridge mode where the configuration names none: a node taken over
 * from flannel keeps its mode.
 */
export function wiringOf(context: PodContext, attachment: VethAttachment, place: PodPlace): Wiring {
  const bridge = bridgeNamed(context.host, attachment.interface.bridge)
  const mode = attachment.interface.mode ?? (bridge === undefined ? modeWithoutBridge(context, place) : 'bridge')
  return {
    mode,
    mtu: attachment.interface.mtu ?? place.mtu,
    clusterNetworks: perFamily(place.clusterNetworks).map(([, network]) => network),
    ...(nodeMasquerades(context.host.observed) ? { masquerades: true as const } : {}),
    ...(mode === 'bridge' && bridge !== undefined ? { bridge } : {})
  }
}

/** `auto` keeps a node that runs pods in routed mode in it: their addresses are of the same subnet. */
function modeWithoutBridge({ defaultMode, attachments, host }: PodContext, { node: { subnet } }: PodPlace): Mode {
  if (defaultMode !== 'auto') return defaultMode
  const isRouted = ({ link, addresses }: ReturnType<typeof attachments.list>[number]): boolean =>
    linkNamed(host.observed, link)?.master === '' &&
    addresses.some((ip) => perFamily(subnet).some(([, own]) => contains(own, ip)))
  return attachments.list().some(isRouted) ? 'routed' : 'bridge'
}

/**
 * The bridge with the MAC that its pods' owners want: what another program has just done to it, or its removal, must
 * not make this pod want another one.
 */
function bridgeNamed({ observed, desired }: PodContext['host'], name: string): Link | undefined {
  const [link, wanted] = [linkNamed(observed, name), linkNamed(desired, name)]
  if ((link ?? wanted)?.form?.type !== 'bridge') return undefined
  return link && wanted?.mac !== undefined ? { ...link, mac: wanted.mac } : (link ?? wanted)
}
