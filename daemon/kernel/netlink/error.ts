// The error for a request that the kernel refused: operation, object, errno, the kernel's sentence, and the cure.
import { getSystemErrorMessage } from 'node:util'
import { formatIp } from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import { errnoName } from '../../os/libc.ts'
import type { Address, Discipline, FouPort, KernelObject, Link, Sysctl } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'

export type KernelErrorDetails = {
  /** A verb: `add`, `change`, `remove`, `read`. */
  readonly operation: string
  /** In the syntax of ip(8). */
  readonly object: string
  /** The number from errno(3). */
  readonly errno: number
  /** The kernel's sentence, from the extended acknowledgement. */
  readonly sentence?: string | undefined
  readonly cure?: string | undefined
}

/** A request that the kernel answered with an error. `errno` is the number, `errnoName` its name. */
export class KernelError extends WeftError {
  readonly operation: string
  readonly object: string
  readonly errno: number
  readonly errnoName: string
  readonly sentence: string | undefined

  constructor(details: KernelErrorDetails, options?: { readonly cause?: unknown }) {
    const { operation, object, errno, sentence } = details
    const name = errnoName(errno)
    super(
      'KERNEL_REFUSED',
      `the kernel refused to ${operation} ${object}: ${name} (${sentence ?? meaning(errno)})`,
      details.cure ?? cures[name] ?? 'see the kernel log (dmesg) for more',
      options
    )
    this.name = 'KernelError'
    this.operation = operation
    this.object = object
    this.errno = errno
    this.errnoName = name
    this.sentence = sentence
  }
}

function meaning(errno: number): string {
  try {
    return getSystemErrorMessage(-errno)
  } catch {
    return 'no further explanation'
  }
}

/**
 * The kernel gives the same error when the link is down and when the host has no address in the gateway's network
 * there.
 */
function gatewayCure(gateway: string, link: string): string {
  return `${gateway} is in the network of no link that is up: check with \`ip address\` whether ${link} is down or has lost its address`
}

const cures: { readonly [name: string]: string } = {
  EPERM:
    "run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace (in a pod: hostNetwork and privileged)",
  EACCES:
    "run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace (in a pod: hostNetwork and privileged)",
  EROFS: 'mount /proc/sys writable for weftd (in a pod: privileged: true)',
  ENODEV: 'check the name with `ip link`; weftd tries again when the device appears',
  EOPNOTSUPP: 'load the module of the feature with modprobe, or install the package with the extra kernel modules',
  ENETDOWN: 'set the link up with `ip link set NAME up`',
  ENETUNREACH: gatewayCure('the gateway', 'its link'),
  EHOSTUNREACH: gatewayCure('the gateway', 'its link'),
  ENOBUFS: 'free memory, or raise the memory limit of the control group',
  ENOMEM: 'free memory, or raise the memory limit of the control group'
}

/** For kernels that answer EOPNOTSUPP ("Unknown device type") because they lack a module. */
export const moduleCure = (module: string): string =>
  `load it with \`modprobe ${module}\`; where the module is missing, install the package with the extra kernel modules ` +
  '(Raspberry Pi and Ubuntu: linux-modules-extra-…; Alpine: linux-lts; Fedora and RHEL: kernel-modules-extra)'

/** The error for one object of a change. */
export function refused(operation: string, object: KernelObject, errno: number, sentence?: string): KernelError {
  return new KernelError({
    operation,
    object: textOf(object),
    errno,
    sentence,
    cure: cureFor(object, errnoName(errno))
  })
}

/** The modules that a queueing discipline needs. */
const modules: Readonly<Record<Discipline['type'], string>> = {
  tbf: 'sch_tbf',
  htb: '-a sch_htb cls_u32',
  redirect: '-a sch_ingress cls_u32 act_mirred',
  other: ''
}

/** addrconf.c: the only reason for EACCES of an IPv6 address; without the privilege it is EPERM. */
const addressCure = ({ device, prefix }: Address): string | undefined =>
  prefix.ip.family === 6
    ? `IPv6 is switched off on ${device}: sysctl -w net/ipv6/conf/${device}/disable_ipv6=0`
    : undefined

function settingCure({ path }: Sysctl, name: string): string | undefined {
  if (name === 'ENOENT') return 'check the name: this kernel does not have the setting, or its device does not exist'
  return name === 'EINVAL' ? `use a value that /proc/sys/${path} accepts` : undefined
}

function linkCure({ name: link, form }: Link, name: string): string | undefined {
  if (form !== undefined && name === 'EOPNOTSUPP') return moduleCure(form.type === 'vlan' ? '8021q' : form.type)
  if (name !== 'EEXIST') return undefined
  return form?.type === 'vxlan'
    ? `delete the link of this name, or the other VXLAN device with VNI ${form.vni} on this port: \`ip -d link show type vxlan\``
    : `delete or rename the link that has this name: \`ip link show ${link}\``
}

function fouCure({ port }: FouPort, name: string): string | undefined {
  if (name === 'ENOENT') return moduleCure('fou')
  return name === 'EADDRINUSE' || name === 'EALREADY'
    ? `end the program that has UDP port ${port}, such as flanneld (\`ss -ulpn sport = ${port}\`, \`ip fou show\`); weftd tries again`
    : undefined
}

function cureFor(object: KernelObject, name: string): string | undefined {
  if (object.kind === 'link') return linkCure(object, name)
  if ('device' in object && object.device !== undefined && name === 'ENETDOWN')
    return `set the link up with \`ip link set ${object.device} up\``
  if (object.kind === 'address' && name === 'EACCES') return addressCure(object)
  if (object.kind === 'route' && object.gateway !== undefined && (name === 'ENETUNREACH' || name === 'EHOSTUNREACH'))
    return gatewayCure(`the gateway ${formatIp(object.gateway)}`, object.device ?? 'its link')
  if (object.kind === 'qdisc' && (name === 'ENOENT' || name === 'EOPNOTSUPP'))
    return moduleCure(modules[object.discipline.type])
  if (object.kind === 'fou') return fouCure(object, name)
  if (object.kind === 'sysctl') return settingCure(object, name)
  if (object.kind === 'offload')
    return `set it with ethtool -K ${object.device} tx ${object.transmitChecksum ? 'on' : 'off'}; \`ethtool -k ${object.device}\` shows whether its driver has it fixed`
  return undefined
}
