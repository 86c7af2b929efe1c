// What every plugin's file exports: a type, a sentence, its versions, and the keys it accepts → Attachment.
import type { Attachment } from './attachment.ts'
import type { AttachmentCall } from './cni/types.ts'
import type { Version } from './cni/version.ts'

export type Plugin = {
  /** The `type` in a configuration, and the executable's file name. */
  readonly type: string
  /** For people, one sentence. */
  readonly about: string
  /** What VERSION announces; a test keeps the executable's answer equal to it. */
  readonly versions: readonly Version[]
  /** What the call asks for. Throws CniError for ADD and CHECK; DEL always gets an answer: what was made must go, whatever became of the configuration. */
  attachment(call: AttachmentCall): Attachment
}
