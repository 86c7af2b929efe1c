// The `portmap` plugin: ports of this host lead to a container whose interface an earlier plugin of the chain has made, whoever's that plugin is.
import type { Attachment, PortWays } from '../attachment.ts'
import { descend, type Field, FieldError, flag, isAbsent, member, oneOf, text, wholeNumber } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { portConditions } from '../keys/port-conditions.ts'
import { portMappings } from '../keys/port-mappings.ts'
import { configured, evenIfUnreadable, identity, podIfReadable } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const mapping = (ports: PortWays): Attachment => ({
    ...identity(call, podIfReadable(call.args)),
    isStandalone: true,
    interface: { kind: 'existing', ports }
  })
  return evenIfUnreadable(
    call,
    () =>
      configured(() => {
        checkWays(root)
        const hostPorts = portMappings(descend(root, 'runtimeConfig', 'portMappings'))
        return { ...mapping(waysOf(root)), ...(hostPorts.length === 0 ? {} : { hostPorts }) }
      }),
    () => mapping({ translates: 'own' })
  )
}

/** Without `snat`, `masqAll` means nothing, as in the reference. */
function waysOf(root: Field): PortWays {
  const isWanted = flag(member(root, 'snat')) ?? true
  const ofAll = flag(member(root, 'masqAll')) ?? false
  const [four, six] = [portConditions(member(root, 'conditionsV4'), 4), portConditions(member(root, 'conditionsV6'), 6)]
  const conditions = { ...(four.length > 0 && { 4: four }), ...(six.length > 0 && { 6: six }) }
  return {
    translates: isWanted ? (ofAll ? 'all' : 'own') : 'nothing',
    ...(Object.keys(conditions).length > 0 && { conditions })
  }
}

/** How the reference does it (which firewall, which mark) is no matter here, but what is written must be valid. */
function checkWays(root: Field): void {
  oneOf(member(root, 'backend'), ['', 'iptables', 'nftables'])
  const [bit, chain] = [member(root, 'markMasqBit'), member(root, 'externalSetMarkChain')]
  wholeNumber(bit, 0, 31)
  if (text(chain) && !isAbsent(bit)) throw new FieldError(bit, `cannot be combined with ${chain.path}`)
}

export const portmap = {
  type: 'portmap',
  about: 'leads ports of this host to a container',
  versions: supportedVersions,
  attachment
} satisfies Plugin
