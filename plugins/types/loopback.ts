// The `loopback` plugin: sets `lo` up in the container. containerd calls it for every pod, at the same time as the
// pod's network.
import type { Attachment } from '../attachment.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { identity, podIfReadable } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

/** It has no keys and reads only the pod's name from CNI_ARGS: malformed ones must not keep `lo` down. */
function attachment(call: AttachmentCall): Attachment {
  return { ...identity(call, podIfReadable(call.args)), interface: { kind: 'loopback' } }
}

export const loopback = {
  type: 'loopback',
  about: 'brings the loopback interface of the container up',
  versions: supportedVersions,
  anyNamespace: true,
  attachment
} satisfies Plugin
