// The `ptp` plugin: connects the container by a veth pair to the host as its gateway, with the reference's keys and
// results.
import { type Attachment, DEFAULT_BRIDGE, type Veth } from '../attachment.ts'
import { FieldError, flag, member } from '../cni/field.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { checkMasqueradeBackend } from '../keys/reference-only.ts'
import { standAlone } from '../keys/stand-alone.ts'
import { mtuOf } from '../keys/veth.ts'
import type { Plugin } from './plugin.ts'

const veth: Veth = {
  kind: 'veth',
  mode: 'routed',
  bridge: DEFAULT_BRIDGE,
  isHairpin: false,
  isPromiscuous: false,
  isDefaultGateway: false,
  like: { kind: 'ptp' }
}

const attachment = (call: AttachmentCall): Attachment =>
  standAlone(call, veth, (root, _, addresses) => {
    if (Object.keys(addresses).length === 0)
      throw new FieldError(member(member(root, 'ipam'), 'type'), 'must be given: ptp connects by addresses')
    checkMasqueradeBackend(root)
    const mtu = mtuOf(member(root, 'mtu'))
    return {
      interface: mtu === undefined ? veth : { ...veth, mtu },
      masquerade: flag(member(root, 'ipMasq')) ?? false
    }
  })

export const ptp = {
  type: 'ptp',
  about: 'connects a container to this host by a pair of interfaces of its own',
  versions: supportedVersions,
  attachment
} satisfies Plugin
