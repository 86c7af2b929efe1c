// The `weft` plugin: interface, addresses, routes, masquerading, host ports and limits of a pod in one call.
import { type Attachment, DEFAULT_BRIDGE, type IpamConfig, type Veth } from '../attachment.ts'
import { type Args, parseArgs } from '../cni/args.ts'
import { descend, entries, type Field, FieldError, flag, member, oneOf, text } from '../cni/field.ts'
import { readDns } from '../cni/result.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { bandwidthOf } from '../keys/bandwidth.ts'
import { dataDirOf, poolOfAnyConfiguration, rangeSet, requestedOf } from '../keys/host-local-ipam.ts'
import { configuredDns } from '../keys/ipam.ts'
import { portMappings } from '../keys/port-mappings.ts'
import { configured, evenIfUnreadable, identity, podArgs, podOf, unsupported } from '../keys/readers.ts'
import { routesIn } from '../keys/routes.ts'
import { bridgeName, macOf, mtuOf } from '../keys/veth.ts'
import { refuseVlans } from '../keys/vlans.ts'
import type { Plugin } from './plugin.ts'

const knownArgs = ['IP', 'MAC', ...podArgs]

const attachment = (call: AttachmentCall): Attachment =>
  evenIfUnreadable(
    call,
    () => strictly(call),
    () => ({ ...identity(call, undefined), interface: plainVeth, ipam: poolOfAnyConfiguration(call) })
  )

function strictly(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const args = parseArgs(call.args, knownArgs)
  return configured(() => {
    refuseUnsupported(root)
    const masquerade = flag(member(root, 'ipMasq'))
    const hostPorts = portMappings(descend(root, 'runtimeConfig', 'portMappings'))
    const bandwidth = bandwidthOf(root)
    return {
      ...identity(call, podOf(args)),
      interface: vethOf(root, args),
      ipam: ipamOf(root, args),
      ...configuredDns(readDns(member(root, 'dns'))),
      ...(masquerade === undefined ? {} : { masquerade }),
      ...(hostPorts.length === 0 ? {} : { hostPorts }),
      ...(bandwidth === undefined ? {} : { bandwidth })
    }
  })
}

/** A key that requests something unsupported is an error (code 2) that names it. */
function refuseUnsupported(root: Field): void {
  const type = descend(root, 'ipam', 'type')
  if (!['', 'weft', 'host-local'].includes(text(type) ?? '')) {
    throw unsupported(type, 'the weft plugin gives addresses itself: leave ipam.type out')
  }
  refuseVlans(root)
  const bridgeAlone = 'the weft plugin does not do this: leave it out, or use the plugin bridge with host-local'
  for (const key of ['portIsolation', 'macspoofchk', 'disableContainerInterface', 'forceAddress']) {
    const requested = member(root, key)
    if (flag(requested)) throw unsupported(requested, bridgeAlone)
  }
  const gateway = member(root, 'isGateway')
  if (flag(gateway) === false) throw unsupported(gateway, 'the bridge of pods is their gateway: leave it out')
}

const plainVeth: Veth = {
  kind: 'veth',
  bridge: DEFAULT_BRIDGE,
  isHairpin: false,
  isPromiscuous: false,
  isDefaultGateway: true
}

function vethOf(root: Field, args: Args): Veth {
  const mode = oneOf(member(root, 'mode'), ['bridge', 'routed'])
  const mtu = mtuOf(member(root, 'mtu'))
  const isHairpin = flag(member(root, 'hairpinMode')) ?? false
  const isPromiscuous = flag(member(root, 'promiscMode')) ?? false
  if (isHairpin && isPromiscuous)
    throw new FieldError(member(root, 'promiscMode'), 'cannot be combined with hairpinMode')
  const address = macOf(root, args)
  return {
    kind: 'veth',
    bridge: bridgeName(member(root, 'bridge')),
    isHairpin,
    isPromiscuous,
    isDefaultGateway: flag(member(root, 'isDefaultGateway')) ?? true,
    ...(mode === undefined ? {} : { mode }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(address === undefined ? {} : { mac: address })
  }
}

/** Ranges are optional: the default is the node's own subnet. */
function ipamOf(root: Field, args: Args): IpamConfig {
  const ipam = member(root, 'ipam')
  return {
    dataDir: dataDirOf(ipam),
    requested: requestedOf(root, args),
    ranges: [descend(root, 'runtimeConfig', 'ipRanges'), member(ipam, 'ranges')].flatMap((sets) =>
      entries(sets).map(rangeSet)
    ),
    routes: routesIn(member(ipam, 'routes'))
  }
}

export const weft = {
  type: 'weft',
  about: 'connects a container to the pod network of this node: interface, addresses, routes',
  versions: supportedVersions,
  attachment
} satisfies Plugin
