// The `portmap` plugin: host ports for a container whose interface an earlier plugin of the chain made, a built-in one
// or not.
import type { Attachment, PortOptions } from '../attachment.ts'
import { descend, type Field, FieldError, flag, isAbsent, member, oneOf, text, wholeNumber } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { portConditions } from '../keys/port-conditions.ts'
import { portMappings } from '../keys/port-mappings.ts'
import { configured, evenIfUnreadable, identity, podIfReadable } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const mapping = (ports: PortOptions): Attachment => ({
    ...identity(call, podIfReadable(call.args)),
    isStandalone: true,
    interface: { kind: 'existing', ports }
  })
  return evenIfUnreadable(
    call,
    () =>
      configured(() => {
        checkImplementationKeys(root)
        const hostPorts = portMappings(descend(root, 'runtimeConfig', 'portMappings'))
        return { ...mapping(optionsOf(root)), ...(hostPorts.length === 0 ? {} : { hostPorts }) }
      }),
    () => mapping({ translates: 'own' })
  )
}

/** Without `snat`, `masqAll` has no effect, as in the reference. */
function optionsOf(root: Field): PortOptions {
  const isWanted = flag(member(root, 'snat')) ?? true
  const ofAll = flag(member(root, 'masqAll')) ?? false
  const [four, six] = [portConditions(member(root, 'conditionsV4'), 4), portConditions(member(root, 'conditionsV6'), 6)]
  const conditions = { ...(four.length > 0 && { 4: four }), ...(six.length > 0 && { 6: six }) }
  return {
    translates: isWanted ? (ofAll ? 'all' : 'own') : 'nothing',
    ...(Object.keys(conditions).length > 0 && { conditions })
  }
}

/** Keys for the reference's implementation (which firewall, which mark) have no effect here, but must be valid. */
function checkImplementationKeys(root: Field): void {
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
