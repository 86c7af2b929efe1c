// The `host-local` plugin: addresses from ranges, reserved in a directory of this host. Another plugin calls it, on ADD
// before it makes the interface.
import type { Attachment } from '../attachment.ts'
import { parseArgs } from '../cni/args.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { hostLocalIpam, poolOfAnyConfiguration } from '../keys/host-local-ipam.ts'
import { configured, evenIfUnreadable, identity, podArgs, podOf } from '../keys/readers.ts'
import type { Plugin } from './plugin.ts'

/** MAC and GATEWAY are for the plugin that calls this one. */
const knownArgs = ['IP', 'MAC', 'GATEWAY', ...podArgs]

function attachment(call: AttachmentCall): Attachment {
  const common = { interface: { kind: 'none' }, isStandalone: true } as const
  return evenIfUnreadable(
    call,
    () => {
      const args = parseArgs(call.args, knownArgs)
      const ipam = configured(() => hostLocalIpam({ path: '', value: call.configuration }, args))
      return { ...identity(call, podOf(args)), ...common, ipam }
    },
    () => ({ ...identity(call, undefined), ...common, ipam: poolOfAnyConfiguration(call) })
  )
}

export const hostLocal = {
  type: 'host-local',
  about: 'gives addresses from ranges, one to a container, and keeps them in a directory of this host',
  versions: supportedVersions,
  anyNamespace: true,
  attachment
} satisfies Plugin
