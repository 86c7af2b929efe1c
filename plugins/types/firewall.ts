// The `firewall` plugin: accepts forwarded packets of the container, also where other programs' firewalls drop unknown
// ones; isolates it if configured.
import { type Prefix, parsePrefix } from '../../ipam/address.ts'
import { type Attachment, DEFAULT_ADMIN_CHAIN, type Existing } from '../attachment.ts'
import { type Field, FieldError, member, oneOf, text } from '../cni/field.ts'
import { previousResult } from '../cni/result.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured, evenIfUnreadable, identity } from '../keys/readers.ts'
import { refuseFirewalld } from '../keys/reference-only.ts'
import type { Plugin } from './plugin.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const accepting = (forwards: readonly Prefix[], more: Pick<Existing, 'isolatedFrom' | 'adminChain'>): Attachment => ({
    ...identity(call, undefined),
    isStandalone: true,
    interface: { kind: 'existing', forwards, ...more }
  })
  return evenIfUnreadable(
    call,
    () => {
      configured(() => refuseFirewalld(root))
      const isolatedFrom = configured(() => policyOf(root))
      const adminChain = configured(() => adminChainOf(root))
      const addresses = call.verb === 'DEL' ? [] : (previousResult(call)?.ips ?? [])
      return accepting(
        addresses.flatMap(({ address }) => parsePrefix(address) ?? []),
        { adminChain, ...(isolatedFrom === undefined ? {} : { isolatedFrom }) }
      )
    },
    () => accepting([], {})
  )
}

/** As iptables takes it: at most 28 characters; of these only such as nft takes, too. */
const chainName = /^[A-Za-z][\w.-]{0,27}$/

function adminChainOf(root: Field): string {
  const field = member(root, 'iptablesAdminChainName')
  const name = text(field) ?? ''
  if (name === '') return DEFAULT_ADMIN_CHAIN
  if (chainName.test(name)) return name
  throw new FieldError(
    field,
    'must be a name of an iptables chain: a letter, then at most 27 of letters, digits, ".", "_" and "-"'
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
