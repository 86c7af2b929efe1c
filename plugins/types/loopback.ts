// The `loopback` plugin: brings `lo` up in the container. containerd calls it for every pod, beside the pod's network and at the same time.
import type { Attachment } from '../attachment.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { identity, podIfReadable } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

/** It has no keys, and CNI_ARGS mean nothing to it but the pod's name: a malformed one must not keep `lo` down. */
function attachment(call: AttachmentCall): Attachment {
  return { ...identity(call, podIfReadable(call.args)), interface: { kind: 'loopback' } }
}

export const loopback = {
  type: 'loopback',
  about: 'brings the loopback interface of the container up',
  versions: supportedVersions,
  attachment
} satisfies Plugin
