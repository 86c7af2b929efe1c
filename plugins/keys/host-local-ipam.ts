// The keys of host-local's `ipam`: requested addresses, ranges, data directory. All plugins that give addresses from a
// pool have them.
import { type AddressRange, DEFAULT_DATA_DIR, type IpamConfig } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { descend, entries, type Field, FieldError, isAbsent, member, text } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { inArgs, ip, prefix, requestedIp } from './readers.ts'
import { routesIn } from './routes.ts'

/** The configuration must name a range. Errors: FieldError; CniError for CNI_ARGS. */
export function hostLocalIpam(root: Field, args: Args): IpamConfig {
  const ipam = member(root, 'ipam')
  if (isAbsent(ipam)) throw new FieldError(ipam, 'must be given: it says which addresses there are')
  const ranges = rangesOf(root)
  if (ranges.length === 0)
    throw new FieldError(member(ipam, 'ranges'), 'must name at least one range set (or give ipam.subnet)')
  const resolvConf = text(member(ipam, 'resolvConf')) || undefined
  return {
    dataDir: dataDirOf(ipam),
    requested: requestedOf(root, args),
    ranges,
    routes: routesIn(member(ipam, 'routes')),
    ...(resolvConf === undefined ? {} : { resolvConf })
  }
}

/** For a DEL whose configuration can't be read: enough to free the reservations. */
export const poolOfAnyConfiguration = (call: AttachmentCall): IpamConfig => ({
  dataDir: dataDirIfReadable(call),
  requested: [],
  ranges: [],
  routes: []
})

/** Addresses in CNI_ARGS, `args.cni` and `runtimeConfig`, all of them as in host-local. */
export function requestedOf(root: Field, args: Args): IpamConfig['requested'] {
  const fromArgs = (args.get('IP') ?? '').split(',').filter((each) => each !== '')
  return [
    ...inArgs('IP', () => fromArgs.map((value) => requestedIp({ path: 'CNI_ARGS: IP', value }))),
    ...entries(descend(root, 'args', 'cni', 'ips')).map(requestedIp),
    ...entries(descend(root, 'runtimeConfig', 'ips')).map(requestedIp)
  ]
}

/** In host-local's order: the runtime's, the one of `ipam` itself, the listed ones. */
function rangesOf(root: Field): IpamConfig['ranges'] {
  const ipam = member(root, 'ipam')
  const single = isAbsent(member(ipam, 'subnet')) ? [] : [[range(ipam)]]
  const sets = (field: Field) => entries(field).map(rangeSet)
  return [...sets(descend(root, 'runtimeConfig', 'ipRanges')), ...single, ...sets(member(ipam, 'ranges'))]
}

export function dataDirOf(ipam: Field): string {
  const folder = text(member(ipam, 'dataDir')) || DEFAULT_DATA_DIR
  if (!folder.startsWith('/')) throw new FieldError(member(ipam, 'dataDir'), 'must be an absolute path')
  return folder
}

function dataDirIfReadable(call: AttachmentCall): string {
  try {
    return dataDirOf(member({ path: '', value: call.configuration }, 'ipam'))
  } catch {
    return DEFAULT_DATA_DIR
  }
}

export function rangeSet(field: Field): readonly AddressRange[] {
  const ranges = entries(field).map(range)
  if (ranges.length === 0) throw new FieldError(field, 'must have at least one range')
  return ranges
}

function range(field: Field): AddressRange {
  const subnet = prefix(member(field, 'subnet'))
  const [rangeStart, rangeEnd, gateway] = ['rangeStart', 'rangeEnd', 'gateway'].map((key) => ip(member(field, key)))
  return {
    subnet,
    ...(rangeStart === undefined ? {} : { rangeStart }),
    ...(rangeEnd === undefined ? {} : { rangeEnd }),
    ...(gateway === undefined ? {} : { gateway })
  }
}
