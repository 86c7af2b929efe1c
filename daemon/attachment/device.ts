// Builders for sysctls, addresses and routes of one device, on the host or in a container.
import type { Prefix } from '../../ipam/address.ts'
import type { InterfaceAddress } from '../../plugins/attachment.ts'
import { defaultMetric, type KernelObject, type Route } from '../state/object.ts'

/** RTPROT_BOOT, as `ip route add` uses it; inside a pod Weft's routes need not be recognised. */
const PROTOCOL_BOOT = 3
export const SCOPE_LINK = 253
const MAIN_TABLE = 254

export const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value })
export const noRouterAdvertisements = (device: string) => sysctl(`net/ipv6/conf/${device}/accept_ra`, '0')
export const noDuplicateDetection = (device: string) => sysctl(`net/ipv6/conf/${device}/accept_dad`, '0')

/**
 * Without duplicate address detection: only Weft assigns these addresses, and a tentative one delays the pod by one or
 * two seconds.
 */
export const address = (device: string, prefix: Prefix): KernelObject => ({
  kind: 'address',
  device,
  prefix,
  ...(prefix.ip.family === 6 ? { nodad: true } : {})
})

export const havingGateway = (addresses: readonly InterfaceAddress[]) =>
  addresses.flatMap(({ prefix, gateway }) => (gateway === undefined ? [] : [{ prefix, gateway }]))

export const route = (destination: Prefix, device: string): Route => ({
  kind: 'route',
  table: MAIN_TABLE,
  destination,
  metric: defaultMetric(destination.ip.family),
  type: 'unicast',
  device,
  protocol: PROTOCOL_BOOT
})
