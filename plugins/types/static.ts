// The `static` plugin: the addresses in its configuration. It reserves nothing.
import type { Attachment } from '../attachment.ts'
import { parseArgs } from '../cni/args.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured, evenIfUnreadable, identity, podArgs, podOf } from '../keys/readers.ts'
import { staticIpam } from '../keys/static-ipam.ts'
import type { Plugin } from './plugin.ts'

/** MAC is for the plugin that calls this one. */
const knownArgs = ['IP', 'GATEWAY', 'MAC', ...podArgs]

function attachment(call: AttachmentCall): Attachment {
  const common = { interface: { kind: 'none' }, isStandalone: true } as const
  return evenIfUnreadable(
    call,
    () => {
      const args = parseArgs(call.args, knownArgs)
      const ipamResult = configured(() => staticIpam({ path: '', value: call.configuration }, args, call.version))
      return { ...identity(call, podOf(args)), ...common, ipamResult }
    },
    () => ({ ...identity(call, undefined), ...common, ipamResult: { addresses: [], routes: [], dns: {} } })
  )
}

export const staticAddresses = {
  type: 'static',
  about: 'gives the addresses that are written in its configuration',
  versions: supportedVersions,
  anyNamespace: true,
  attachment
} satisfies Plugin
