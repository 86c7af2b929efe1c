// The `weft` plugin: a pod's interface, its addresses, its way out and in, and its limits, in one call. Which keys it has and what they mean.
import type { AddressRange, Attachment, IpamWish, Veth } from './attachment.ts'
import { bandwidthOf } from './bandwidth-wish.ts'
import { type Args, parseArgs } from './cni/args.ts'
import { CniError } from './cni/error.ts'
import { descend, entries, type Field, FieldError, flag, member, oneOf, text } from './cni/field.ts'
import { readDns, readRoute } from './cni/result.ts'
import type { AttachmentCall, Dns } from './cni/types.ts'
import { supportedVersions } from './cni/version.ts'
import type { Plugin } from './plugin.ts'
import { defaultDataDir } from './pool-wish.ts'
import { portMappings } from './port-mappings.ts'
import { bridgeName, defaultBridge, macOf, mtuOf } from './veth-wish.ts'
import { configured, identity, inArgs, ip, podArgs, podOf, prefix, requestedIp, unsupported } from './wishes.ts'

const knownArgs = ['IP', 'MAC', ...podArgs]

function attachment(call: AttachmentCall): Attachment {
  if (call.verb !== 'DEL') return strictly(call)
  try {
    return strictly(call)
  } catch (error) {
    // What was made must go, whatever became of the configuration since; identity and reservations are known without it.
    if (error instanceof CniError)
      return {
        ...identity(call, undefined),
        interface: plainVeth,
        ipam: { ...plainIpam, dataDir: dataDirIfReadable(call) }
      }
    throw error
  }
}

function strictly(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  const args = parseArgs(call.args, knownArgs)
  return configured(() => {
    refuseUnsupported(root)
    const dns = dnsOf(root)
    const masquerade = flag(member(root, 'ipMasq'))
    const hostPorts = portMappings(descend(root, 'runtimeConfig', 'portMappings'))
    const bandwidth = bandwidthOf(root)
    return {
      ...identity(call, podOf(args)),
      interface: vethOf(root, args),
      ipam: ipamOf(root, args),
      ...(dns === undefined ? {} : { dns }),
      ...(masquerade === undefined ? {} : { masquerade }),
      ...(hostPorts.length === 0 ? {} : { hostPorts }),
      ...(bandwidth === undefined ? {} : { bandwidth })
    }
  })
}

/** What is asked for and not done is an error with the key's name (code 2), never silence. */
function refuseUnsupported(root: Field): void {
  const type = descend(root, 'ipam', 'type')
  if (!['', 'weft', 'host-local'].includes(text(type) ?? '')) {
    throw unsupported(type, 'the weft plugin gives addresses itself: leave ipam.type out')
  }
}

const plainVeth: Veth = {
  kind: 'veth',
  bridge: defaultBridge,
  isHairpin: false,
  isPromiscuous: false,
  isDefaultGateway: true
}
const plainIpam: IpamWish = { dataDir: defaultDataDir, requested: [], ranges: [], routes: [] }

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

function ipamOf(root: Field, args: Args): IpamWish {
  const ipam = member(root, 'ipam')
  const fromArgs = (args.get('IP') ?? '').split(',').filter((each) => each !== '')
  return {
    dataDir: dataDirOf(ipam),
    requested: [
      ...inArgs('IP', () => fromArgs.map((value) => requestedIp({ path: 'CNI_ARGS: IP', value }))),
      ...entries(descend(root, 'args', 'cni', 'ips')).map(requestedIp),
      ...entries(descend(root, 'runtimeConfig', 'ips')).map(requestedIp)
    ],
    ranges: [descend(root, 'runtimeConfig', 'ipRanges'), member(ipam, 'ranges')].flatMap((sets) =>
      entries(sets).map(rangeSet)
    ),
    routes: entries(member(ipam, 'routes')).map(readRoute)
  }
}

function dataDirOf(ipam: Field): string {
  const folder = text(member(ipam, 'dataDir')) || defaultDataDir
  if (!folder.startsWith('/')) throw new FieldError(member(ipam, 'dataDir'), 'must be an absolute path')
  return folder
}

function dataDirIfReadable(call: AttachmentCall): string {
  try {
    return dataDirOf(member({ path: '', value: call.configuration }, 'ipam'))
  } catch {
    return defaultDataDir
  }
}

function rangeSet(field: Field): readonly AddressRange[] {
  const ranges = entries(field).map(range)
  if (ranges.length === 0) throw new FieldError(field, 'must have at least one range')
  return ranges
}

function range(field: Field): AddressRange {
  const subnet = prefix(member(field, 'subnet'))
  const [rangeStart, rangeEnd, gateway] = ['rangeStart', 'rangeEnd', 'gateway'].map((key) => ip(member(field, key)))
  return {
    subnet,
    ...(rangeStart === undefined ? {} : { rangeStart }),
    ...(rangeEnd === undefined ? {} : { rangeEnd }),
    ...(gateway === undefined ? {} : { gateway })
  }
}

function dnsOf(root: Field): Dns | undefined {
  const dns = readDns(member(root, 'dns'))
  return Object.keys(dns).length === 0 ? undefined : dns
}

export const weft = {
  type: 'weft',
  about: 'connects a container to the pod network of this node: interface, addresses, routes',
  versions: supportedVersions,
  attachment
} satisfies Plugin
