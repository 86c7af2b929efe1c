// The `firewall` plugin: packets of the container are let through this host, whatever other programs' firewalls do with those that they do not know.
import { type Prefix, parsePrefix } from '../../ipam/address.ts'
import type { Attachment, Existing } from '../attachment.ts'
import { type Field, member, oneOf } from '../cni/field.ts'
import { previousResult } from '../cni/result.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured, evenIfUnreadable, identity } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const letThrough = (forwards: readonly Prefix[], apart?: Existing['apart']): Attachment => ({
    ...identity(call, undefined),
    isStandalone: true,
    interface: { kind: 'existing', forwards, ...(apart === undefined ? {} : { apart }) }
  })
  return evenIfUnreadable(
    call,
    () => {
      const apart = configured(() => policyOf(root))
      const addresses = call.verb === 'DEL' ? [] : (previousResult(call)?.ips ?? [])
      return letThrough(
        addresses.flatMap(({ address }) => parsePrefix(address) ?? []),
        apart
      )
    },
    () => letThrough([])
  )
}

/** Backends and names of chains and zones say how the reference does it. */
function policyOf(root: Field): Existing['apart'] {
  switch (oneOf(member(root, 'ingressPolicy'), ['', 'open', 'same-bridge', 'isolated'])) {
    case 'same-bridge':
      return 'from other bridges'
    case 'isolated':
      return 'from all'
    default:
      return undefined
  }
}

export const firewall = {
  type: 'firewall',
  about: 'lets the packets of a container pass through this host, but not to others where these are kept apart',
  versions: supportedVersions,
  attachment
} satisfies Plugin
