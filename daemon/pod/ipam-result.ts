// What an IPAM plugin of somebody else has answered, or what a runtime hands back of it, as addresses to be given to an interface.
import { parseIp, parsePrefix } from '../../ipam/address.ts'
import type { GivenAddresses } from '../../plugins/attachment.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { WeftError } from '../base/error.ts'

/** `ifname`: only addresses of that interface in a container, when the result has several. */
export function ipamResultOf({ ips, interfaces, routes, dns }: Result, ifname?: string): GivenAddresses {
  const isOf = (at: number | undefined) => {
    const named = at === undefined ? undefined : interfaces[at]
    return ifname === undefined || named === undefined || (named.name === ifname && named.sandbox !== undefined)
  }
  const addresses = ips.flatMap(({ address, gateway, interface: at }) => {
    const prefix = parsePrefix(address)
    if (prefix === undefined || !isOf(at)) return []
    const ip = parseIp(gateway ?? '')
    return [{ prefix, ...(ip === undefined ? {} : { gateway: ip }) }]
  })
  return { addresses, routes, dns }
}

/** CHECK compares with what its ADD has answered. Errors: PREVIOUS_MISSING. */
export function requireAddress(previous: Result | undefined): asserts previous is Result {
  if (previous === undefined)
    throw new WeftError(
      'PREVIOUS_MISSING',
      'Required prevResult missing',
      'a runtime must hand CHECK the result of the ADD'
    )
}
