// The `bridge` plugin: connects the container to a bridge, with the reference's keys and results.
import { type Attachment, DEFAULT_BRIDGE, type Veth } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { type Field, FieldError, flag, isAbsent, member } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { checkMasqueradeBackend, refuseDuplicateDetection } from '../keys/reference-only.ts'
import { standAlone } from '../keys/stand-alone.ts'
import { bridgeName, macOf, mtuOf } from '../keys/veth.ts'
import { bridgeVlans } from '../keys/vlans.ts'
import type { Plugin } from './plugin.ts'

const plain: Veth = {
  ...{ kind: 'veth', mode: 'bridge', bridge: DEFAULT_BRIDGE, isHairpin: false, isPromiscuous: false },
  isDefaultGateway: false,
  like: { kind: 'bridge', isGateway: false, forcesAddress: false }
}

const attachment = (call: AttachmentCall): Attachment =>
  standAlone(call, plain, (root, args) => {
    refuseDuplicateDetection(root)
    checkMasqueradeBackend(root)
    return { interface: vethOf(root, args), masquerade: flag(member(root, 'ipMasq')) ?? false }
  })

function vethOf(root: Field, args: Args): Veth {
  const isHairpin = flag(member(root, 'hairpinMode')) ?? false
  const isPromiscuous = flag(member(root, 'promiscMode')) ?? false
  if (isHairpin && isPromiscuous)
    throw new FieldError(member(root, 'promiscMode'), 'cannot be combined with hairpinMode')
  const isDefaultGateway = flag(member(root, 'isDefaultGateway')) ?? false
  const isGateway = isDefaultGateway || (flag(member(root, 'isGateway')) ?? false)
  const bridge = bridgeName(member(root, 'bridge'))
  const vlans = bridgeVlans(root, bridge, isGateway)
  const staysDown = flag(member(root, 'disableContainerInterface')) ?? false
  if (staysDown && !isAbsent(member(member(root, 'ipam'), 'type')))
    throw new FieldError(
      member(root, 'disableContainerInterface'),
      'cannot be combined with ipam: nothing would use the addresses'
    )
  const [mtu, mac] = [mtuOf(member(root, 'mtu')), macOf(root, args)]
  return {
    kind: 'veth',
    mode: 'bridge',
    bridge,
    isHairpin,
    isPromiscuous,
    isDefaultGateway,
    like: {
      kind: 'bridge',
      isGateway,
      forcesAddress: flag(member(root, 'forceAddress')) ?? false
    },
    ...(mtu === undefined ? {} : { mtu }),
    ...(mac === undefined ? {} : { mac }),
    ...(vlans === undefined ? {} : { vlans }),
    ...(flag(member(root, 'portIsolation')) ? { isIsolated: true as const } : {}),
    ...(flag(member(root, 'macspoofchk')) ? { checksSource: true as const } : {}),
    ...(staysDown ? { staysDown: true as const } : {})
  }
}

export const bridge = {
  type: 'bridge',
  about: 'connects a container to a bridge of this host',
  versions: supportedVersions,
  attachment
} satisfies Plugin
