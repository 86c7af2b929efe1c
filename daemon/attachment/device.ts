// Builders for sysctls, addresses and routes of one device, on the host or in a container.
import { type Family, network, type Prefix, width } from '../../ipam/address.ts'
import type { InterfaceAddress } from '../../plugins/attachment.ts'
import type { KernelObject, Mac, Route } from '../state/object.ts'
import { PROTOCOL_KERNEL } from '../state/ownership.ts'
import { connectedMetric, defaultMetric, LINK_SCOPE, MAIN_TABLE } from '../state/route.ts'

/**
 * The route to the prefix of an address, which the kernel adds with it: desired, so that it is back when somebody
 * flushes the device's routes.
 */
export function connected(device: string, prefix: Prefix): readonly Route[] {
  const { family } = prefix.ip
  if (prefix.length === width(family)) return []
  const route: Route = {
    ...{ kind: 'route', table: MAIN_TABLE, destination: network(prefix), metric: connectedMetric(family) },
    ...{ type: 'unicast', device, protocol: PROTOCOL_KERNEL, withAddress: prefix }
  }
  return [family === 4 ? { ...route, scope: LINK_SCOPE, source: prefix.ip } : route]
}

/**
 * The same with the link-local address that the kernel makes of the device's MAC (addr_gen_mode 0; RFC 4291, appendix
 * A). Where the device has another one, the route waits for ever, which is no difference.
 */
export function connectedLinkLocal(device: string, mac: Mac): readonly Route[] {
  const octets = mac.split(':').map((octet) => Number.parseInt(octet, 16))
  const eui64 = [(octets[0] ?? 0) ^ 2, ...octets.slice(1, 3), 0xff, 0xfe, ...octets.slice(3)]
  const value = eui64.reduce((sum, octet) => (sum << 8n) | BigInt(octet), 0n)
  return connected(device, { ip: { family: 6, value: (0xfe80n << 112n) | value }, length: 64 })
}

/** RTPROT_BOOT, as `ip route add` uses it; inside a pod Weft's routes need not be recognised. */
const PROTOCOL_BOOT = 3

export const sysctl = (path: string, value: string): KernelObject => ({ kind: 'sysctl', path, value })
export const noRouterAdvertisements = (device: string) => sysctl(`net/ipv6/conf/${device}/accept_ra`, '0')
export const noDuplicateDetection = (device: string) => sysctl(`net/ipv6/conf/${device}/accept_dad`, '0')

/** The kernel announces the device's addresses when it comes up, and when its MAC is set. */
export const announced = (device: string, has6: boolean): readonly KernelObject[] => [
  sysctl(`net/ipv4/conf/${device}/arp_notify`, '1'),
  ...(has6 ? [sysctl(`net/ipv6/conf/${device}/ndisc_notify`, '1')] : [])
]

/**
 * What lets a device of ours carry pods' packets, whatever net.*.conf.default says: a new device gets that, and
 * hardened hosts and systemd-networkd set it to off. `ip_forward` alone is not enough: the kernel asks the device that
 * a packet came in by. IPv6 is switched on only where pods have it; without a link-local address (addr_gen_mode 1) the
 * host can't solicit the pod for a packet that it forwards.
 */
export const carriesPackets = (device: string, families: readonly Family[]): readonly KernelObject[] =>
  families.flatMap((family) =>
    family === 4
      ? [sysctl(`net/ipv4/conf/${device}/forwarding`, '1')]
      : [sysctl(`net/ipv6/conf/${device}/addr_gen_mode`, '0'), sysctl(`net/ipv6/conf/${device}/disable_ipv6`, '0')]
  )

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
