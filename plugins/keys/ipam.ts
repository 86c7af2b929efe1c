// Where an interface's addresses come from: `ipam.type` is a built-in plugin, a third party's, or absent.
import type { Attachment } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { type Field, FieldError, member, text } from '../cni/field.ts'
import type { AttachmentCall, Dns } from '../cni/types.ts'
import type { Version } from '../cni/version.ts'
import { hostLocalIpam, poolOfAnyConfiguration } from './host-local-ipam.ts'
import { staticIpam } from './static-ipam.ts'

export type AddressConfig = Pick<Attachment, 'ipam' | 'ipamResult' | 'delegate'>

/** Empty: the interface gets no address (layer 2). Errors: FieldError; CniError for CNI_ARGS. */
export function addressConfig(root: Field, args: Args, version: Version): AddressConfig {
  const type = ipamType(root)
  switch (type) {
    case '':
      return {}
    case 'host-local':
      return { ipam: hostLocalIpam(root, args) }
    case 'static':
      return { ipamResult: staticIpam(root, args, version) }
    default:
      return { delegate: type }
  }
}

/** For a DEL whose configuration can't be read. */
export function addressConfigUnchecked(call: AttachmentCall): AddressConfig {
  try {
    const type = ipamType({ path: '', value: call.configuration })
    if (type !== 'host-local') return type === '' || type === 'static' ? {} : { delegate: type }
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
  }
  return { ipam: poolOfAnyConfiguration(call) }
}

/** Built-in plugins that are no IPAM plugins: called as one, they would make an interface of their own. */
const OTHERS: readonly string[] = [
  ...['weft', 'bridge', 'ptp', 'macvlan', 'loopback', 'flannel'],
  ...['portmap', 'bandwidth', 'tuning', 'firewall']
]

function ipamType(root: Field): string {
  const field = member(member(root, 'ipam'), 'type')
  const type = text(field) ?? ''
  if (OTHERS.includes(type))
    throw new FieldError(
      field,
      `must be an IPAM plugin, as host-local, static or another project's: ${type} makes interfaces`
    )
  if (type.includes('/')) throw new FieldError(field, 'must be the file name of a plugin, without "/"')
  return type
}

/** Absent if it has no members: then the IPAM plugin's DNS is used. */
export const configuredDns = (dns: Dns): { readonly dns?: Dns } => (Object.keys(dns).length === 0 ? {} : { dns })
