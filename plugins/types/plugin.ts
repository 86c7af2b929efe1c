// What each plugin's file exports: its type, description and versions, and the function that makes an attachment of a
// call.
import type { PerFamily, Prefix } from '../../ipam/address.ts'
import type { Attachment } from '../attachment.ts'
import type { JsonObject } from '../cni/field.ts'
import type { AttachmentCall, Call } from '../cni/types.ts'
import type { Version } from '../cni/version.ts'

type Named = {
  /** The `type` in a configuration, and the executable's file name. */
  readonly type: string
  /** One phrase for documents and help. */
  readonly about: string
  /** What VERSION reports; a test keeps the executable's answer equal. */
  readonly versions: readonly Version[]
  /** It makes nothing in the host's network namespace, so that its caller may be in another one than weftd. */
  readonly anyNamespace?: true
}

export type Plugin = Named & {
  /**
   * Throws CniError for ADD and CHECK; DEL always gets an attachment, since what was made must be removed even if the
   * configuration is invalid now.
   */
  attachment(call: AttachmentCall): Attachment
}

/** The values of subnet.env. */
export type SubnetFacts = {
  readonly network: PerFamily<Prefix>
  readonly subnet: PerFamily<Prefix>
  readonly mtu?: number
  readonly ipMasq?: boolean
}

/**
 * Has no verbs of its own: weftd reads a file of the node, and calls another plugin with a configuration made from it.
 */
export type ForwardingPlugin = Named & {
  /** The file to read, and the directory for the other plugin's configuration by container id. Throws CniError. */
  files(call: Exclude<Call, { readonly verb: 'VERSION' }>): {
    readonly subnetFile: string
    readonly stateDirectory: string
  }
  /** The other plugin's configuration, `type` included. Throws CniError. */
  forward(call: Exclude<Call, { readonly verb: 'VERSION' }>, facts: SubnetFacts): JsonObject
}
