// What this kernel lacks, found by trying in an empty network namespace: kernels of small boards lack drivers, and
// report it only on use.

import { WeftError } from '../base/error.ts'
import { CallFailed, close, errnoName, errnoNumber, netlinkSocket } from '../os/libc.ts'
import type { Feature } from '../state/feature.ts'
import type { Link } from '../state/object.ts'
import { dumpLinks } from './dump.ts'
import { findFou } from './fou-ports.ts'
import { insideNew } from './namespace.ts'
import { createLink, type Resolve } from './netlink/encode.ts'
import { moduleCure } from './netlink/error.ts'
import { addFou } from './netlink/fou.ts'
import { GenericFamilies, NETLINK_GENERIC } from './netlink/generic.ts'
import { Lane } from './netlink/lane.ts'
import { NETLINK_NETFILTER } from './netlink/nfnetlink.ts'
import { type Failure, RequestSocket } from './netlink/request-socket.ts'
import { type MissingNat, missingNat } from './nftables/nat-trial.ts'
import { NftSession } from './nftables/session.ts'
import { tryTun } from './tun.ts'

/** Needed by every node, besides nf_tables. */
const ALWAYS: readonly Link[] = [
  { kind: 'link', name: 'try-veth', form: { type: 'veth', peer: { name: 'try-peer' } } },
  { kind: 'link', name: 'try-bridge', form: { type: 'bridge' } }
]

/**
 * An error for each missing feature: veth, bridge, nf_tables, and `features`, the configured backend's. Never rejects, as
 * `lacking`.
 */
export async function missingFeatures(
  features: readonly Feature[],
  hasWireguardGo = false
): Promise<readonly WeftError[]> {
  const missing = await lacking([...ALWAYS, ...features], hasWireguardGo)
  const nfTables = missingNetfilter()
  return nfTables === undefined ? missing : [...missing, nfTables]
}

/**
 * An error for each of these that the kernel can't make, tried in their order. The kernel loads the drivers it has as
 * modules. With wireguard-go the kernel's WireGuard is not needed. Never rejects: what can't be tried counts as missing,
 * in one error.
 */
export async function lacking(features: readonly Feature[], hasWireguardGo = false): Promise<readonly WeftError[]> {
  if (features.length === 0) return []
  let sockets: Trial
  try {
    sockets = insideNew(() => ({
      links: new RequestSocket(new Lane()),
      generic: new RequestSocket(new Lane(), NETLINK_GENERIC)
    }))
  } catch (error) {
    return [notTried(error)]
  }
  const missing: WeftError[] = []
  try {
    for (const feature of features) {
      if (hasWireguardGo && feature.kind === 'link' && feature.form?.type === 'wireguard') continue
      const failure = await tried(feature, sockets)
      if (failure !== undefined) missing.push(missingFeature(nameOf(feature), failure.errno, failure.sentence))
    }
  } catch (error) {
    missing.push(notTried(error))
  } finally {
    for (const socket of Object.values(sockets)) socket[Symbol.dispose]()
  }
  return missing
}

/** Sockets in an empty network namespace. */
type Trial = { readonly links: RequestSocket; readonly generic: RequestSocket }

async function tried(feature: Feature, { links, generic }: Trial): Promise<Failure> {
  if (feature.kind === 'link' && feature.form?.type === 'tun') return tryTun(feature.name)
  if (feature.kind === 'link') return (await links.send([createLink(feature, loopback)]))[0]
  const family = await findFou(generic, new GenericFamilies(generic))
  if (family === undefined) return { errno: errnoNumber('ENOENT'), sentence: 'no generic netlink family fou' }
  return (await generic.send([addFou(family, feature)]))[0]
}

function nameOf(feature: Feature): string {
  if (feature.kind === 'fou') return 'fou'
  const { name, form } = feature
  return form?.type === 'ipip' && form.fou !== undefined ? 'ipip with fou' : (form?.type ?? name)
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

function notTried(error: unknown): WeftError {
  const message = `weftd can't create a network namespace to try the kernel's features: ${String(error)}`
  const cure = 'run weftd as root with CAP_NET_ADMIN and CAP_SYS_ADMIN'
  return new WeftError('KERNEL_FEATURE_MISSING', message, cure, { cause: error })
}

/** Whether the kernel has NETLINK_NETFILTER; the first transaction shows whether nf_tables answers there. */
function missingNetfilter(): WeftError | undefined {
  try {
    close(netlinkSocket(NETLINK_NETFILTER))
    return undefined
  } catch (error) {
    return missingFeature('nf_tables', error instanceof CallFailed ? error.errno : 0)
  }
}

const cureOf = (feature: string): string =>
  feature === 'wireguard'
    ? `${moduleCure(feature)}; or install wireguard-go and name it with --wireguard-go`
    : moduleCure(moduleOf(feature))

function missingFeature(feature: string, errno: number, sentence?: string): WeftError {
  const why = `${errnoName(errno)}${sentence === undefined ? '' : `, ${sentence}`}`
  return new WeftError(
    'KERNEL_FEATURE_MISSING',
    `this kernel can't make ${article(feature)} ${feature} (${why})`,
    cureOf(feature)
  )
}

const article = (feature: string): string => (/^[aeio]/.test(feature) ? 'an' : 'a')

/** `ipip with fou`: modprobe takes several names after -a. */
const moduleOf = (feature: string): string => (feature.includes(' ') ? `-a ${feature.replace(' with ', ' ')}` : feature)
