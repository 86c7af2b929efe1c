// The `bandwidth` plugin: throughput limits of a veth pair that an earlier plugin of the chain made.
import type { Attachment } from '../attachment.ts'
import type { Field } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { bandwidthOf } from '../keys/bandwidth.ts'
import { configured, evenIfUnreadable, identity, podIfReadable } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

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
        const bandwidth = bandwidthOf(root)
        return bandwidth === undefined ? plain : { ...plain, bandwidth }
      }),
    () => plain
  )
}

export const bandwidth = {
  type: 'bandwidth',
  about: "limits a container's throughput",
  versions: supportedVersions,
  attachment
} satisfies Plugin
