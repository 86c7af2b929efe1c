// What this kernel lacks, found by trying in an empty network namespace: kernels of small boards lack drivers, and
// report it only on use.
import { WeftError } from '../base/error.ts'
import { CallFailed, close, errnoName, netlinkSocket } from '../os/libc.ts'
import type { Link } from '../state/object.ts'
import { dumpLinks } from './dump.ts'
import { insideNew } from './namespace.ts'
import { createLink, type Resolve } from './netlink/encode.ts'
import { moduleCure } from './netlink/error.ts'
import { Lane } from './netlink/lane.ts'
import { NETLINK_NETFILTER } from './netlink/nfnetlink.ts'
import { RequestSocket } from './netlink/request-socket.ts'
import { type MissingNat, missingNat } from './nftables/nat-trial.ts'
import { NftSession } from './nftables/session.ts'

/** Needed by every node, besides nf_tables. */
const ALWAYS: readonly Link[] = [
  { kind: 'link', name: 'try-veth', form: { type: 'veth', peer: { name: 'try-peer' } } },
  { kind: 'link', name: 'try-bridge', form: { type: 'bridge' } }
]

/**
 * An error for each missing feature: veth, bridge, nf_tables, and `links`, the configured backend's, each of a type of
 * its own. The kernel loads the drivers it has as modules. Never rejects: what can't be tried counts as missing, in one
 * error.
 */
export async function missingFeatures(links: readonly Link[]): Promise<readonly WeftError[]> {
  let socket: RequestSocket
  try {
    socket = insideNew(() => new RequestSocket(new Lane()))
  } catch (error) {
    const message = `weftd can't create a network namespace to try the kernel's features: ${String(error)}`
    const cure = 'run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN'
    return [new WeftError('KERNEL_FEATURE_MISSING', message, cure, { cause: error })]
  }
  const missing: WeftError[] = []
  try {
    const trials = [...ALWAYS, ...links]
    const failures = await socket.send(trials.map((link) => createLink(link, loopback)))
    for (const [at, { name, form }] of trials.entries()) {
      const failure = failures[at]
      if (failure !== undefined) missing.push(missingFeature(form?.type ?? name, failure.errno, failure.sentence))
    }
  } finally {
    socket[Symbol.dispose]()
  }
  const nfTables = missingNetfilter()
  return nfTables === undefined ? missing : [...missing, nfTables]
}

/**
 * Whether a bridge can keep VLANs apart. One of a kernel without CONFIG_BRIDGE_VLAN_FILTERING takes the setting without a
 * word, and does not have it. Tried once, since it can't change. Errors: CallFailed, KernelError.
 */
export function vlanTrial(): () => Promise<boolean> {
  let known: boolean | undefined
  return async () => {
    known ??= await bridgesFilterVlans()
    return known
  }
}

async function bridgesFilterVlans(): Promise<boolean> {
  using socket = insideNew(() => new RequestSocket(new Lane()))
  const bridge: Link = { kind: 'link', name: 'try-bridge', form: { type: 'bridge' }, vlanFiltering: true }
  const [failure] = await socket.send([createLink(bridge, loopback)])
  if (failure !== undefined) return false
  const links = await dumpLinks(socket)
  return [...links.values()].some((link) => link.name === bridge.name && link.vlanFiltering === true)
}

/**
 * What nftables lacks for masquerading; `undefined`: nothing, or it can't be tried, which `missingFeatures` reports.
 * Errors: NFTABLES_MISSING.
 */
export async function missingMasquerade(): Promise<MissingNat | undefined> {
  try {
    return await missingNat(() => insideNew(() => new NftSession()))
  } catch (error) {
    if (error instanceof CallFailed) return undefined
    throw error
  }
}

const loopback: Resolve = { index: () => 1, netns: () => -1 }

/** Whether the kernel has NETLINK_NETFILTER; the first transaction shows whether nf_tables answers there. */
function missingNetfilter(): WeftError | undefined {
  try {
    close(netlinkSocket(NETLINK_NETFILTER))
    return undefined
  } catch (error) {
    return missingFeature('nf_tables', error instanceof CallFailed ? error.errno : 0)
  }
}

function missingFeature(feature: string, errno: number, sentence?: string): WeftError {
  const why = `${errnoName(errno)}${sentence === undefined ? '' : `, ${sentence}`}`
  return new WeftError('KERNEL_FEATURE_MISSING', `this kernel can't make a ${feature} (${why})`, moduleCure(feature))
}
