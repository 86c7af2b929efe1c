// Results between CNI's shape (plugins/cni/types.ts, text) and the daemon's (attachment/result.ts, values).
import { formatIp, formatPrefix, parseIp, parsePrefix } from '../../ipam/address.ts'
import type { InterfaceRoute, IpamResult } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { routeFrom } from '../../plugins/keys/routes.ts'
import type { AttachmentResult, InterfaceChanges } from '../attachment/result.ts'

/** What an ADD prints, as CNI 1.1.0 has it; plugins/cni/result.ts writes it in the version of the call. */
export const toCni = ({ interfaces, addresses, routes, dns }: AttachmentResult): Result => ({
  interfaces,
  ips: addresses.map(({ interface: at, prefix, gateway }) => ({
    ...(at === undefined ? {} : { interface: at }),
    address: formatPrefix(prefix),
    ...(gateway === undefined ? {} : { gateway: formatIp(gateway) })
  })),
  routes: routes.map(cniRoute),
  dns
})

const cniRoute = ({ destination, gateway, ...rest }: InterfaceRoute): Result['routes'][number] => ({
  dst: formatPrefix(destination),
  ...(gateway === undefined ? {} : { gw: formatIp(gateway) }),
  ...rest
})

/** A prevResult. Its addresses and routes are valid text: plugins/cni/result.ts has read them. */
export const fromCni = ({ interfaces, ips, routes, dns }: Result): AttachmentResult => ({
  interfaces,
  addresses: ips.flatMap(({ interface: at, address, gateway }) => {
    const [prefix, ip] = [parsePrefix(address), parseIp(gateway ?? '')]
    if (prefix === undefined) return []
    return [{ ...(at === undefined ? {} : { interface: at }), prefix, ...(ip === undefined ? {} : { gateway: ip }) }]
  }),
  routes: routes.flatMap((route) => routeFrom(route) ?? []),
  dns
})

/** What an IPAM plugin answered. */
export function ipamResultFrom(result: Result): IpamResult {
  const { addresses, routes, dns } = fromCni(result)
  return { addresses: addresses.map(({ interface: _, ...address }) => address), routes, dns }
}

/** prevResult as a chained plugin hands it on: text that it did not change stays as it is. */
export const withChanges = (previous: Result, ifname: string, { own, added }: InterfaceChanges): Result => ({
  ...previous,
  interfaces: [
    ...previous.interfaces.map((each) =>
      own !== undefined && each.name === ifname && each.sandbox !== undefined
        ? {
            ...each,
            ...(own.mac === undefined ? {} : { mac: own.mac }),
            // Not added where no plugin reported an MTU before.
            ...(own.mtu === undefined || each.mtu === undefined ? {} : { mtu: own.mtu })
          }
        : each
    ),
    ...(added ?? [])
  ]
})
