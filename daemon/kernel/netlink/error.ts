// What the kernel refused, in words: operation, object, errno, the kernel's own sentence, and what to do about it.
import { getSystemErrorMessage } from 'node:util'
import { formatIp } from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import { errnoName } from '../../os/libc.ts'
import type { Discipline, KernelObject } from '../../state/object.ts'
import { textOf } from '../../state/text.ts'

export type KernelErrorDetails = {
  /** What was tried, as a verb: `add`, `change`, `remove`, `read`. */
  readonly operation: string
  /** On what, in the syntax of ip(8). */
  readonly object: string
  /** The number from errno(3). */
  readonly errno: number
  /** The kernel's own sentence, from the extended acknowledgement. */
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

/** The kernel says the same where the link is down as where nobody there has an address of the gateway's network. */
function noWay(gateway: string, link: string): string {
  return `${gateway} is in the network of no link that is up: see whether ${link} is down (\`ip link\`) or has lost its address (\`ip address\`)`
}

const cures: { readonly [name: string]: string } = {
  EPERM:
    "run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace (in a pod: hostNetwork and privileged)",
  EACCES:
    "run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace (in a pod: hostNetwork and privileged)",
  EROFS: 'mount /proc/sys writable for weftd (in a pod: privileged: true)',
  ENODEV: 'look which devices exist with `ip link`; weftd tries again when the device appears',
  EOPNOTSUPP:
    'this kernel lacks the feature: load its module with modprobe or install the package with the extra kernel modules',
  ENETDOWN: 'the link is down: see `ip link`, and set it up with `ip link set NAME up`',
  ENETUNREACH: noWay('the gateway', 'its link'),
  EHOSTUNREACH: noWay('the gateway', 'its link'),
  ENOBUFS: 'the kernel is short of memory for network buffers: look at `free` and at the limits of the control group',
  ENOMEM: 'the kernel is short of memory: look at `free` and at the limits of the control group'
}

/** Modules behind the kinds of link we make, for kernels that answer EOPNOTSUPP ("Unknown device type"). */
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

/** What a queueing discipline needs. */
const modules: Readonly<Record<Discipline['type'], string>> = {
  tbf: 'sch_tbf',
  htb: '-a sch_htb cls_u32',
  redirect: '-a sch_ingress cls_u32 act_mirred',
  other: ''
}

function cureFor(object: KernelObject, name: string): string | undefined {
  if (object.kind === 'link' && object.form !== undefined && name === 'EOPNOTSUPP') return moduleCure(object.form.type)
  if (object.kind === 'link' && name === 'EEXIST') {
    return object.form?.type === 'vxlan'
      ? `a link with this name, or another VXLAN device with VNI ${object.form.vni} on this port, exists: see \`ip -d link show type vxlan\``
      : `a link with this name exists already: see \`ip link show ${object.name}\``
  }
  if ('device' in object && object.device !== undefined && name === 'ENETDOWN')
    return `${object.device} is down: set it up with \`ip link set ${object.device} up\``
  if (object.kind === 'route' && object.gateway !== undefined && (name === 'ENETUNREACH' || name === 'EHOSTUNREACH'))
    return noWay(`the gateway ${formatIp(object.gateway)}`, object.device ?? 'its link')
  if (object.kind === 'qdisc' && (name === 'ENOENT' || name === 'EOPNOTSUPP'))
    return moduleCure(modules[object.discipline.type])
  if (object.kind === 'sysctl' && name === 'ENOENT')
    return 'this kernel does not have the setting, or its device does not exist'
  if (object.kind === 'sysctl' && name === 'EINVAL')
    return `the kernel does not take this value: see /proc/sys/${object.path}`
  return undefined
}
