// The `tuning` plugin: settings of an interface that an earlier plugin of the chain made, and sysctls of the
// container's network.
import type { Attachment, Tuning } from '../attachment.ts'
import { type Args, parseArgs } from '../cni/args.ts'
import {
  descend,
  type Field,
  FieldError,
  flag,
  isAbsent,
  isObject,
  member,
  required,
  text,
  wholeNumber
} from '../cni/field.ts'
import { repeatedKey } from '../cni/repeated-key.ts'
import type { AttachmentCall } from '../cni/types.ts'
import { supportedVersions } from '../cni/version.ts'
import { configured, evenIfUnreadable, identity, mac, podArgs, podOf } from '../keys/readers.ts'
import { interfaceArgs, macOf, mtuOf } from '../keys/veth.ts'
import type { Plugin } from './plugin.ts'

const defaultDataDir = '/run/cni/tuning'

function attachment(call: AttachmentCall): Attachment {
  const root: Field = { path: '', value: call.configuration }
  return evenIfUnreadable(
    call,
    () => {
      const args = parseArgs(call.args, [...interfaceArgs, ...podArgs])
      const tuning = configured(() => {
        refuseRepeated(call)
        return tuningOf(root, args, call.ifname)
      })
      return { ...identity(call, podOf(args)), isStandalone: true, interface: { kind: 'existing', tuning } }
    },
    () => ({
      ...identity(call, undefined),
      isStandalone: true,
      interface: { kind: 'existing', tuning: { sysctls: [], dataDir: dataDirIfReadable(root) } }
    })
  )
}

/** `args.cni` wins, then the runtime, then CNI_ARGS (MAC only), then the configuration. */
function tuningOf(root: Field, args: Args, ifname: string): Tuning {
  const requested = descend(root, 'args', 'cni')
  const mtu = mtuOf(member(requested, 'mtu')) ?? mtuOf(member(root, 'mtu'))
  const flagOf = (key: string) => flag(member(requested, key)) ?? flag(member(root, key))
  const queueOf = (keys: Field) => wholeNumber(member(keys, 'txQLen'), 0, 0x7fff_ffff)
  const address = mac(member(requested, 'mac')) ?? macOf(root, args) ?? mac(member(root, 'mac'))
  const overriding = sysctlsOf(member(requested, 'sysctl'), ifname)
  const own = sysctlsOf(member(root, 'sysctl'), ifname)
  return {
    sysctls: [...own.filter(({ path }) => !overriding.some((each) => each.path === path)), ...overriding],
    dataDir: dataDirOf(root),
    ...(mtu === undefined ? {} : { mtu }),
    ...(address === undefined ? {} : { mac: address }),
    // As in the reference, `promisc: false` has no effect, while the other two may also switch off.
    ...(flagOf('promisc') ? { promiscuous: true } : {}),
    ...defined('allMulticast', flagOf('allmulti')),
    ...defined('queueLength', queueOf(requested) ?? queueOf(root))
  }
}

const defined = <K extends string, T>(key: K, value: T | undefined): { readonly [key in K]?: T } =>
  (value === undefined ? {} : { [key]: value }) as { readonly [key in K]?: T }

/** The same key twice is only in the text; two spellings of one sysctl are found by its path. */
function refuseRepeated({ input }: AttachmentCall): void {
  const key = input === undefined ? undefined : repeatedKey(input, ['sysctl', 'args.cni.sysctl'])
  if (key !== undefined) throw new FieldError({ path: `sysctl.${key}`, value: key }, 'must not be set a second time')
}

/**
 * `net.ipv4.conf.IFNAME.arp_filter` → `net/ipv4/conf/eth0/arp_filter`. A key with slashes keeps its dots: an
 * interface's name may have some.
 */
function sysctlsOf(field: Field, ifname: string): Tuning['sysctls'] {
  if (isAbsent(field)) return []
  if (!isObject(field.value)) throw new FieldError(field, 'must be an object')
  const seen = new Set<string>()
  return Object.entries(field.value).map(([key, value]) => {
    const entry = { path: `${field.path}.${key}`, value }
    const parts = key.split(key.includes('/') ? '/' : '.')
    const at = parts.indexOf('IFNAME')
    const path = parts.map((part, index) => (index === at ? ifname : part)).join('/')
    if (parts[0] !== 'net' || parts.length < 2 || parts.some((part) => ['', '.', '..'].includes(part)))
      throw new FieldError({ ...entry, value: key }, 'invalid net sysctl key: it must begin with "net."')
    if (seen.has(path)) throw new FieldError({ ...entry, value: key }, `must not set ${path} a second time`)
    seen.add(path)
    return { path, value: required(text(entry), entry, 'a string') }
  })
}

function dataDirOf(root: Field): string {
  const field = member(root, 'dataDir')
  const folder = text(field) || defaultDataDir
  if (!folder.startsWith('/')) throw new FieldError(field, 'must be an absolute path')
  return folder
}

function dataDirIfReadable(root: Field): string {
  try {
    return dataDirOf(root)
  } catch {
    return defaultDataDir
  }
}

export const tuning = {
  type: 'tuning',
  about: "sets an interface's MAC address, MTU and modes, and sysctls of the container's network",
  versions: supportedVersions,
  attachment
} satisfies Plugin
