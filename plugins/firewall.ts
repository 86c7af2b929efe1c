// The `firewall` plugin: packets of the container are let through this host, whatever other programs' firewalls do with those that they do not know.
import { type Prefix, parsePrefix } from '../ipam/address.ts'
import type { Attachment } from './attachment.ts'
import { type Field, member, oneOf } from './cni/field.ts'
import { previousResult } from './cni/result.ts'
import type { AttachmentCall } from './cni/types.ts'
import { supportedVersions } from './cni/version.ts'
import type { Plugin } from './plugin.ts'
import { configured, evenIfUnreadable, identity, unsupported } from './wishes.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const letThrough = (forwards: readonly Prefix[]): Attachment => ({
    ...identity(call, undefined),
    isStandalone: true,
    interface: { kind: 'existing', forwards }
  })
  return evenIfUnreadable(
    call,
    () => {
      configured(() => refuseUnsupported(root))
      const addresses = call.verb === 'DEL' ? [] : (previousResult(call)?.ips ?? [])
      return letThrough(addresses.flatMap(({ address }) => parsePrefix(address) ?? []))
    },
    () => letThrough([])
  )
}

/** Backends and names of chains and zones say how the reference does it. A policy that keeps containers apart must not be passed over in silence. */
function refuseUnsupported(root: Field): void {
  const field = member(root, 'ingressPolicy')
  const policy = oneOf(field, ['', 'open', 'same-bridge', 'isolated'])
  if (policy === 'same-bridge' || policy === 'isolated')
    throw unsupported(
      field,
      'Weft lets containers reach each other: use network policies, or the plugin of the reference'
    )
}

export const firewall = {
  type: 'firewall',
  about: 'lets the packets of a container pass through this host',
  versions: supportedVersions,
  attachment
} satisfies Plugin
