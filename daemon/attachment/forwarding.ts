// Sysctls that make this host forward, without losing a default route learned from router advertisements.
import type { Family } from '../../ipam/address.ts'
import type { KernelObject, Route, State } from '../state/object.ts'
import { sysctl } from './device.ts'

/** RTPROT_RA: learned from a router advertisement. */
const PROTOCOL_RA = 9

/**
 * Forwarding for these families. Where a default route came from a router advertisement, accept_ra becomes 2 first:
 * with 1, forwarding would make the kernel forget that route (Documentation/networking/ip-sysctl.rst, accept_ra).
 */
export function forwarding(families: readonly Family[], observed: State): readonly KernelObject[] {
  const because = 'this host forwards for its pods'
  return families.flatMap((family) => {
    if (family === 4) return [{ ...sysctl('net/ipv4/ip_forward', '1'), because }]
    const learned = [...observed.values()].filter(
      (object): object is Route =>
        object.kind === 'route' &&
        object.protocol === PROTOCOL_RA &&
        object.destination.ip.family === 6 &&
        object.destination.length === 0
    )
    const devices = [...new Set(learned.flatMap(({ device }) => device ?? []))]
    return [
      ...devices.map((device) => ({
        ...sysctl(`net/ipv6/conf/${device}/accept_ra`, '2'),
        because: `${device} has its default route from a router`
      })),
      { ...sysctl('net/ipv6/conf/all/forwarding', '1'), because }
    ]
  })
}
