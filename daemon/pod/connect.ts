// Connects an attachment's interface with addresses that are reserved already: bridge, veth pair, rules, and what is
// inside the container.
import { FAMILIES, formatIp, formatPrefix } from '../../ipam/address.ts'
import type { InterfaceAddress, VethAttachment } from '../../plugins/attachment.ts'
import { forwarding } from '../attachment/forwarding.ts'
import { bridgeOwnerOf, hostName, mayBeOf, ownerOf } from '../attachment/identity.ts'
import { containerEnd, podObjects, type Wiring, withGateways } from '../attachment/objects.ts'
import { type AttachmentResult, resultOf } from '../attachment/result.ts'
import { routedDevice } from '../attachment/routed.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { failureIn, type Outcome, type Sandbox } from '../state/kernel.ts'
import { type KernelObject, type Link, linkNamed } from '../state/object.ts'
import { conflictingAddresses, refuseSecondGateway } from './bridge-addresses.ts'
import { refuseUnfilteredVlans } from './bridge-vlans.ts'
import type { PodContext, PodPlace } from './context.ts'
import { applyInside } from './netns.ts'
import { placeForAdd } from './place.ts'
import { timed } from './timing.ts'
import { wiringOf } from './wiring.ts'

/** Milliseconds for a veth pair to get its carrier once both ends are up. */
const CARRIER_TIMEOUT_MS = 2_500

export type Prepared = {
  readonly place: PodPlace
  readonly wiring: Wiring
  /** Gives back the host ports that this call claimed. */
  readonly releasePorts: () => void
}

/**
 * What can be refused before an address is reserved, and the claim on host ports. Errors: conditions that block ADD,
 * BRIDGE_INVALID, INTERFACE_EXISTS, PORT_TAKEN; nothing is claimed then.
 */
export function prepareConnect(context: PodContext, attachment: VethAttachment): Prepared {
  const place = placeForAdd(context, attachment)
  const wiring = wiringOf(context, attachment, place)
  refuseImpossible(context, attachment, wiring)
  const { ports } = context.attachments
  const releasePorts = ports.claim(ownerOf(attachment), attachment.because, attachment.hostPorts ?? [])
  return { place, wiring, releasePorts }
}

/**
 * Resolves when the pair has its carrier. With `isHandedOver` there is no `sandbox`, and it resolves when the
 * container's end can be moved. The caller has the attachment's turn, and undoes a failed call by disconnect(). Errors:
 * GATEWAY_MISSING, KERNEL_FEATURE_MISSING, ADDRESS_HELD, BRIDGE_INVALID, INTERFACE_EXISTS, INTERFACE_DOWN, the kernel's.
 */
export async function connect(
  context: PodContext,
  attachment: VethAttachment,
  reserved: readonly InterfaceAddress[],
  { place, wiring }: Prepared,
  sandbox?: Sandbox
): Promise<AttachmentResult> {
  const addresses = withGateways(attachment, reserved)
  await refuseUnfilteredVlans(context, attachment, wiring)
  refuseNoGateway(attachment, addresses)
  if (wiring.mode === 'routed') refuseRoutedElsewhere(context, attachment, addresses)
  refuseSecondGateway(attachment, addresses, wiring, place.node.subnet, context.host.observed)
  const conflicting = conflictingAddresses(attachment, addresses, wiring, context.host.observed)
  if (conflicting.length > 0) throwFailure(attachment, await context.host.discard(conflicting, true))
  await make(context, attachment, addresses, { place, wiring }, sandbox)
  context.attachments.set({
    ...attachment,
    link: hostName(attachment),
    addresses: addresses.map(({ prefix }) => prefix.ip),
    ...(attachment.ipam && { dataDir: attachment.ipam.dataDir }),
    ...(attachment.hostPorts === undefined ? {} : { hostPorts: attachment.hostPorts })
  })
  return resultOf(attachment, addresses, place.node, wiring)
}

async function make(
  context: PodContext,
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  { place, wiring }: Pick<Prepared, 'place' | 'wiring'>,
  sandbox: Sandbox | undefined
): Promise<void> {
  const { shared, bridge, host: own, inside } = podObjects(attachment, addresses, place.node, wiring)
  const host = [...own, ...forwardingFor(context, attachment, addresses, place)]
  await timed(context, 'ADD', 'host', async () => {
    if (wiring.bridge !== undefined) await fixMac(context, wiring.bridge)
    // In a request of its own: others may be making the same bridge, and what they have under way is waited for.
    if (bridge.length > 0) throwFailure(attachment, await context.host.want(bridgeOwnerOf(attachment), bridge))
    const pod = [ownerOf(attachment), host] as const
    const all = shared.length === 0 ? [pod] : [context.attachments.shared.with(shared), pod]
    // What other pods share is repaired or reported; only what this one needs may fail it.
    throwFailure(attachment, await context.host.wantAll(all), [...shared, ...host])
  })
  if (sandbox !== undefined)
    await timed(context, 'ADD', 'inside', async () => {
      throwFailure(attachment, await applyInside(sandbox, inside))
      if (addresses.length > 0 && !attachment.interface.staysDown) await waitForCarrier(context, attachment)
    })
  // From now on the link is watched, not made again: a pair that vanished took the pod's addresses and routes along.
  context.host.keep(ownerOf(attachment), host.map(withoutPeer))
}

/**
 * A bridge that was there before our first pod: the kernel would give it the lowest MAC of its ports with each new one,
 * unless its MAC was set. The reference's bridge plugin does the same.
 */
async function fixMac({ host }: PodContext, { name, mac }: Link): Promise<void> {
  if (mac === undefined || linkNamed(host.desired, name) !== undefined) return
  await host.impose({ kind: 'link', name, form: { type: 'bridge' }, mac })
}

function refuseImpossible(context: PodContext, attachment: VethAttachment, wiring: Wiring): void {
  const { bridge } = attachment.interface
  const named = linkNamed(context.host.observed, bridge)
  if (wiring.mode === 'bridge' && named !== undefined && named.form?.type !== 'bridge') {
    throw new WeftError(
      'BRIDGE_INVALID',
      `"${bridge}" already exists but is not a bridge`,
      `rename that link, or name another bridge in network ${attachment.network}`
    )
  }
  const own = linkNamed(context.host.observed, hostName(attachment))
  if (own === undefined) return
  const whose = mayBeOf(attachment, own.alias) ? 'it belongs to this attachment' : `it belongs to "${own.alias}"`
  throw new WeftError(
    'INTERFACE_EXISTS',
    `the host's link ${own.name} for ${attachment.because} already exists: ${whose}`,
    'a runtime must send DEL before it sends ADD for the same container and interface again'
  )
}

function refuseNoGateway(
  { interface: { like }, network }: VethAttachment,
  addresses: readonly InterfaceAddress[]
): void {
  const without = addresses.find(({ gateway }) => gateway === undefined)
  if (like?.kind !== 'ptp' || without === undefined) return
  throw new WeftError(
    'GATEWAY_MISSING',
    `${formatPrefix(without.prefix)} has no gateway, and ptp routes everything via one`,
    `give the address a gateway in ipam of network ${network}`
  )
}

/** In routed mode an address of another pod would take that pod's route, whichever network it is in. */
function refuseRoutedElsewhere(
  { host, attachments }: PodContext,
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[]
): void {
  for (const { prefix } of addresses) {
    const device = routedDevice(prefix.ip, host.observed)
    if (device === undefined || device === hostName(attachment)) continue
    const holder = attachments.withLink(device)?.because ?? `a pod with the link ${device}`
    throw new WeftError(
      'ADDRESS_HELD',
      `${formatIp(prefix.ip)} for ${attachment.because} is already routed to ${holder}`,
      'give the networks different addresses: in routed mode they share the routing table of this host'
    )
  }
}

/** So that the pod's first packet is not lost: the reference's bridge waits for this, too, and as long. */
async function waitForCarrier({ kernel }: PodContext, attachment: VethAttachment): Promise<void> {
  if (await kernel.runs(hostName(attachment), CARRIER_TIMEOUT_MS)) return
  throw new WeftError(
    'INTERFACE_DOWN',
    `the host's link ${hostName(attachment)} for ${attachment.because} has no carrier after ${CARRIER_TIMEOUT_MS / 1000} s`,
    `find the program that sets ${attachment.ifname} down inside the container, or that link on the host; the runtime retries`
  )
}

/** The node forwards for the families of its own subnet anyway. */
function forwardingFor(
  context: PodContext,
  { interface: { like } }: VethAttachment,
  addresses: readonly InterfaceAddress[],
  { node: { subnet } }: PodPlace
): readonly KernelObject[] {
  if (like?.kind === 'bridge' && !like.isGateway) return []
  const families = FAMILIES.filter(
    (family) => subnet[family] === undefined && addresses.some(({ prefix }) => prefix.ip.family === family)
  )
  return forwarding(families, context.host.observed)
}

/** A veth that exists is kept as it is; when it goes, no new one is made. */
const withoutPeer = (object: KernelObject): KernelObject =>
  object.kind === 'link' && object.form?.type === 'veth' ? { ...object, form: { type: 'veth' } } : object

function throwFailure(attachment: VethAttachment, outcomes: readonly Outcome[], asked?: readonly KernelObject[]): void {
  const failure = failureIn(outcomes, asked)
  if (failure === undefined) return
  const { change, error } = failure
  const isPair = change.object.kind === 'link' && change.object.name === hostName(attachment)
  if (!isPair || !('errnoName' in error) || error.errnoName !== 'EEXIST') throw error
  const { name, sandbox = "this host's namespace" } = containerEnd(attachment)
  throw new WeftError(
    'INTERFACE_EXISTS',
    `${name} exists already in ${sandbox}: ${reasonOf(error)}`,
    'delete that interface, or let the runtime use another name; it was not touched',
    { cause: error }
  )
}
