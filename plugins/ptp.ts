// The `ptp` plugin: the container alone on a pair of interfaces, the host as its gateway, with the reference's keys and results.
import type { Attachment, Veth } from './attachment.ts'
import { parseArgs } from './cni/args.ts'
import { type Field, FieldError, flag, member } from './cni/field.ts'
import { readDns } from './cni/result.ts'
import type { AttachmentCall } from './cni/types.ts'
import { supportedVersions } from './cni/version.ts'
import { addressWish, addressWishOfAnyConfiguration, givenDns } from './ipam-wish.ts'
import type { Plugin } from './plugin.ts'
import { defaultBridge, interfaceArgs, mtuOf } from './veth-wish.ts'
import { configured, evenIfUnreadable, identity, podArgs, podOf } from './wishes.ts'

const veth: Veth = {
  kind: 'veth',
  mode: 'routed',
  bridge: defaultBridge,
  isHairpin: false,
  isPromiscuous: false,
  isDefaultGateway: false,
  like: { kind: 'ptp' }
}

function attachment(call: AttachmentCall): Attachment {
  return evenIfUnreadable(
    call,
    () => strictly(call),
    () => ({
      ...identity(call, undefined),
      isStandalone: true,
      interface: veth,
      ...addressWishOfAnyConfiguration(call)
    })
  )
}

function strictly(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const args = parseArgs(call.args, [...interfaceArgs, ...podArgs])
  return configured(() => {
    const addresses = addressWish(root, args, call.version)
    if (Object.keys(addresses).length === 0)
      throw new FieldError(member(member(root, 'ipam'), 'type'), 'must be given: ptp connects by addresses')
    const mtu = mtuOf(member(root, 'mtu'))
    return {
      ...identity(call, podOf(args)),
      isStandalone: true,
      interface: mtu === undefined ? veth : { ...veth, mtu },
      ...addresses,
      ...givenDns(readDns(member(root, 'dns'))),
      masquerade: flag(member(root, 'ipMasq')) ?? false
    }
  })
}

export const ptp = {
  type: 'ptp',
  about: 'connects a container to this host by a pair of interfaces of its own',
  versions: supportedVersions,
  attachment
} satisfies Plugin
