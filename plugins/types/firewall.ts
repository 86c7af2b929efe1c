// The `firewall` plugin: accepts forwarded packets of the container, also where other programs' firewalls drop unknown
// ones; isolates it if configured.
import { type Prefix, parsePrefix } from '../../ipam/address.ts'
import type { Attachment, Existing } from '../attachment.ts'
import { type Field, member, oneOf } from '../cni/field.ts'
import { previousResult } from '../cni/result.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured, evenIfUnreadable, identity } from '../keys/readers.ts'
import { refuseFirewalld } from '../keys/reference-only.ts'
import type { Plugin } from './plugin.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const accepting = (forwards: readonly Prefix[], isolatedFrom?: Existing['isolatedFrom']): Attachment => ({
    ...identity(call, undefined),
    isStandalone: true,
    interface: { kind: 'existing', forwards, ...(isolatedFrom === undefined ? {} : { isolatedFrom }) }
  })
  return evenIfUnreadable(
    call,
    () => {
      configured(() => refuseFirewalld(root))
      const isolatedFrom = configured(() => policyOf(root))
      const addresses = call.verb === 'DEL' ? [] : (previousResult(call)?.ips ?? [])
      return accepting(
        addresses.flatMap(({ address }) => parsePrefix(address) ?? []),
        isolatedFrom
      )
    },
    () => accepting([])
  )
}

function policyOf(root: Field): Existing['isolatedFrom'] {
  switch (oneOf(member(root, 'ingressPolicy'), ['', 'open', 'same-bridge', 'isolated'])) {
    case 'same-bridge':
      return 'other bridges'
    case 'isolated':
      return 'all'
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
