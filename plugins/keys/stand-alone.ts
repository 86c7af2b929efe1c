// Shared by the plugins that make an interface with the reference's name and keys: bridge, ptp, macvlan.
import type { Attachment, Interface } from '../attachment.ts'
import { type Args, parseArgs } from '../cni/args.ts'
import { type Field, member } from '../cni/field.ts'
import { readDns } from '../cni/result.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { type AddressConfig, addressConfig, addressConfigUnchecked, configuredDns } from './ipam.ts'
import { configured, evenIfUnreadable, identity, podArgs, podOf } from './readers.ts'
import { interfaceArgs } from './veth.ts'

/** The plugin's own part of an attachment. */
export type Own = Pick<Attachment, 'interface' | 'masquerade'>

/**
 * `plain` is the interface for a DEL whose configuration can no longer be read. Errors: CniError, those of `read` as
 * FieldError.
 */
export const standAlone = (
  call: AttachmentCall,
  plain: Interface,
  read: (root: Field, args: Args, addresses: AddressConfig) => Own
): Attachment =>
  evenIfUnreadable(
    call,
    () => {
      const root: Field = { path: '', value: call.configuration }
      const args = parseArgs(call.args, [...interfaceArgs, ...podArgs])
      return configured(() => {
        const addresses = addressConfig(root, args, call.version)
        return {
          ...identity(call, podOf(args)),
          isStandalone: true,
          ...read(root, args, addresses),
          ...addresses,
          ...configuredDns(readDns(member(root, 'dns')))
        }
      })
    },
    () => ({
      ...identity(call, undefined),
      isStandalone: true,
      interface: plain,
      ...addressConfigUnchecked(call)
    })
  )
