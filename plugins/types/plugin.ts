// What every plugin's file exports: a type, a sentence, its versions, and the keys it accepts → what the daemon is to do.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { Attachment } from '../attachment.ts'
import type { JsonObject } from '../cni/field.ts'
import type { AttachmentCall, Call } from '../cni/types.ts'
import type { Version } from '../cni/version.ts'

type Named = {
  /** The `type` in a configuration, and the executable's file name. */
  readonly type: string
  /** For people, one sentence. */
  readonly about: string
  /** What VERSION announces; a test keeps the executable's answer equal to it. */
  readonly versions: readonly Version[]
}

export type Plugin = Named & {
  /** What the call asks for. Throws CniError for ADD and CHECK; DEL always gets an answer: what was made must go, whatever became of the configuration. */
  attachment(call: AttachmentCall): Attachment
}

/** What subnet.env says. */
export type SubnetFacts = {
  readonly network: PerFamily<Prefix>
  readonly subnet: PerFamily<Prefix>
  readonly mtu?: number
  readonly ipMasq?: boolean
}

/** Makes nothing itself: weftd reads a file of the node, and another plugin's configuration comes of it. */
export type ForwardingPlugin = Named & {
  /** What the daemon reads, and the folder where it keeps the other plugin's configuration, by container id. Throws CniError. */
  files(call: Exclude<Call, { readonly verb: 'VERSION' }>): {
    readonly subnetFile: string
    readonly stateDirectory: string
  }
  /** The other plugin's configuration, `type` included. Throws CniError. */
  forward(call: Exclude<Call, { readonly verb: 'VERSION' }>, facts: SubnetFacts): JsonObject
}
