// The `bandwidth` plugin: limits the throughput of an interface that an earlier plugin of the chain has made as a pair with an end on this host.
import type { Attachment } from './attachment.ts'
import { bandwidthOf } from './bandwidth-wish.ts'
import { entries, type Field, member } from './cni/field.ts'
import type { AttachmentCall } from './cni/types.ts'
import { supportedVersions } from './cni/version.ts'
import type { Plugin } from './plugin.ts'
import { configured, evenIfUnreadable, identity, podIfReadable, unsupported } from './wishes.ts'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const plain: Attachment = {
    ...identity(call, podIfReadable(call.args)),
    isStandalone: true,
    interface: { kind: 'existing', limits: true }
  }
  return evenIfUnreadable(
    call,
    () =>
      configured(() => {
        refuseSubnets(root)
        const bandwidth = bandwidthOf(root)
        return bandwidth === undefined ? plain : { ...plain, bandwidth }
      }),
    () => plain
  )
}

/** Some releases of the reference (1.5) tell packets apart by their other end. */
function refuseSubnets(root: Field): void {
  for (const key of ['shapedSubnets', 'unshapedSubnets']) {
    const field = member(root, key)
    if (entries(field).length > 0)
      throw unsupported(field, 'Weft limits all packets of a container alike: take this key out of the configuration')
  }
}

export const bandwidth = {
  type: 'bandwidth',
  about: "limits a container's throughput",
  versions: supportedVersions,
  attachment
} satisfies Plugin
