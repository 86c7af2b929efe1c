// The keys of `ipam` with type `static`: configured addresses, routes and DNS, without a pool.
import { contains } from '../../ipam/address.ts'
import type { InterfaceAddress, IpamResult } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { CniError, cniCode } from '../cni/error.ts'
import { descend, entries, type Field, FieldError, isAbsent, member } from '../cni/field.ts'
import { readDns } from '../cni/result.ts'
import { isAtLeast, type Version } from '../cni/version.ts'
import { inArgs, ip, prefix } from './readers.ts'
import { routesIn } from './routes.ts'

/**
 * Configured addresses and those of CNI_ARGS; `args.cni.ips` replaces both, and `runtimeConfig.ips` all, then without
 * gateways (cni.md 3.7). Errors: FieldError; CniError for CNI_ARGS and for addresses that the version cannot express.
 */
export function staticIpam(root: Field, args: Args, version: Version): IpamResult {
  const ipam = member(root, 'ipam')
  if (isAbsent(ipam)) throw new FieldError(ipam, 'must be given: it says which addresses there are')
  const written = entries(member(ipam, 'addresses')).map(addressOf)
  const added = inArgs('IP', () => listed(args, 'IP').map((field) => ({ prefix: prefix(field) })))
  const gateways = inArgs('GATEWAY', () => listed(args, 'GATEWAY').flatMap((field) => ip(field) ?? []))
  const own = [...written, ...added].map(({ prefix, ...rest }): InterfaceAddress => {
    const gateway = gateways.find((each) => contains(prefix, each))
    return gateway === undefined ? { prefix, ...rest } : { prefix, gateway }
  })
  const replacing = [descend(root, 'runtimeConfig', 'ips'), descend(root, 'args', 'cni', 'ips')].find(
    (field) => entries(field).length > 0
  )
  const addresses = replacing === undefined ? own : entries(replacing).map((field) => ({ prefix: prefix(field) }))
  refuseSeveral(addresses, version)
  return { addresses, routes: routesIn(member(ipam, 'routes')), dns: readDns(member(ipam, 'dns')) }
}

const listed = (args: Args, key: string): readonly Field[] =>
  (args.get(key) ?? '')
    .split(',')
    .filter((value) => value !== '')
    .map((value) => ({ path: `CNI_ARGS: ${key}`, value }))

function addressOf(field: Field): InterfaceAddress {
  const gateway = ip(member(field, 'gateway'))
  return { prefix: prefix(member(field, 'address')), ...(gateway === undefined ? {} : { gateway }) }
}

function refuseSeveral(addresses: readonly InterfaceAddress[], version: Version): void {
  const families = addresses.map(({ prefix }) => prefix.ip.family)
  if (isAtLeast(version, '0.3.0') || new Set(families).size === families.length) return
  throw new CniError(`cniVersion ${version} allows one address per family`, {
    code: cniCode.incompatibleVersion,
    details: `ipam has ${addresses.length} addresses: use cniVersion 0.3.0 or later`
  })
}
