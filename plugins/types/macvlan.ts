// The `macvlan` plugin: connects the container to the network of a device of this host, with its own MAC address.
import type { Attachment, Macvlan } from '../attachment.ts'
import type { Args } from '../cni/args.ts'
import { type Field, FieldError, flag, member, oneOf, text, wholeNumber } from '../cni/field.ts'
import { brokenNameRule } from '../cni/interface-name.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { mac } from '../keys/readers.ts'
import { standAlone } from '../keys/stand-alone.ts'
import { macOf, mtuOf } from '../keys/veth.ts'
import type { Plugin } from './plugin.ts'

const plain: Macvlan = { kind: 'macvlan', mode: 'bridge', isMasterInside: false }

const attachment = (call: AttachmentCall): Attachment =>
  standAlone(call, plain, (root, args) => ({ interface: macvlanOf(root, args) }))

function macvlanOf(root: Field, args: Args): Macvlan {
  const master = masterOf(member(root, 'master'))
  const isMasterInside = flag(member(root, 'linkInContainer')) ?? false
  if (isMasterInside && master === undefined)
    throw new FieldError(member(root, 'master'), 'must be given together with linkInContainer')
  const mtu = mtuOf(member(root, 'mtu'))
  const address = macOf(root, args) ?? mac(member(root, 'mac'))
  const broadcastQueue = wholeNumber(member(root, 'bcqueuelen'), 0, 0xffff_ffff) ?? 0
  return {
    ...plain,
    mode: oneOf(emptyIsAbsent(member(root, 'mode')), ['bridge', 'private', 'vepa', 'passthru']) ?? 'bridge',
    isMasterInside,
    ...(master === undefined ? {} : { master }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(address === undefined ? {} : { mac: address }),
    ...(broadcastQueue === 0 ? {} : { broadcastQueue })
  }
}

const emptyIsAbsent = (field: Field): Field => (field.value === '' ? { ...field, value: undefined } : field)

function masterOf(field: Field): string | undefined {
  const name = text(field) ?? ''
  const rule = name === '' ? undefined : brokenNameRule(name)
  if (rule !== undefined) throw new FieldError(field, `must be an interface name: it ${rule}`)
  return name === '' ? undefined : name
}

export const macvlan = {
  type: 'macvlan',
  about: "connects a container to the network of a device of this host, by an interface of the container's own on it",
  versions: supportedVersions,
  attachment
} satisfies Plugin
