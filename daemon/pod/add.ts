// ADD: reserve, make what is desired on the host and in the container, answer; or undo all of it and say why.
import { FAMILIES, formatIp, formatPrefix, overlaps, type Prefix, sameIp } from '../../ipam/address.ts'
import type { Reservations } from '../../ipam/reservations.ts'
import type { InterfaceAddress, VethAttachment } from '../../plugins/attachment.ts'
import { forwarding } from '../attachment/forwarding.ts'
import { bridgeOwnerOf, hostName, mayBeOf, ownerOf } from '../attachment/identity.ts'
import { podObjects, type Wiring, withGateways } from '../attachment/objects.ts'
import { type AttachmentResult, resultOf } from '../attachment/result.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { failureIn, type Outcome, type Sandbox } from '../state/kernel.ts'
import { type Address, type KernelObject, linkNamed } from '../state/object.ts'
import { allocate } from './allocate.ts'
import type { PodContext, PodPlace } from './context.ts'
import { giveBack, takeDown } from './disconnect.ts'
import { applyInside, openSandbox } from './netns.ts'
import { placeForAdd } from './place.ts'
import { readResolvConf } from './resolv-conf.ts'
import { timed } from './timing.ts'
import { wiringOf } from './wiring.ts'

/** Milliseconds for a pair to work once both its ends are up. */
const PATIENCE = 2_500

/** Errors: WeftError, whatever blocks ADD among them. Nothing is left behind by one that fails. */
export async function add(context: PodContext, attachment: VethAttachment): Promise<AttachmentResult> {
  const asked = context.now()
  return context.attachments.inTurn(attachment, () => {
    context.timings('ADD', 'queue', (context.now() - asked) / 1000)
    return attach(context, attachment)
  })
}

async function attach(context: PodContext, attachment: VethAttachment): Promise<AttachmentResult> {
  const place = placeForAdd(context, attachment)
  const wiring = wiringOf(context, attachment, place)
  refuseImpossible(context, attachment, wiring)
  const { ports } = context.attachments
  const giveBackPorts = ports.claim(ownerOf(attachment), attachment.because, attachment.hostPorts ?? [])
  try {
    return await make(context, withDns(attachment), place, wiring)
  } catch (error) {
    giveBackPorts()
    throw error
  }
}

async function make(
  context: PodContext,
  attachment: VethAttachment,
  place: PodPlace,
  wiring: Wiring
): Promise<AttachmentResult> {
  using sandbox = await timed(context, 'ADD', 'sandbox', () => openSandbox(context, attachment))
  const reservations = attachment.ipam && context.networks.reservations(attachment.ipam.dataDir, attachment.network)
  const reserved =
    reservations === undefined
      ? (attachment.ipamResult?.addresses ?? [])
      : await timed(context, 'ADD', 'reserve', () => allocate(context, reservations, attachment, place))
  const addresses = withGateways(attachment, reserved)
  try {
    refuseNoGateway(attachment, addresses)
    await giveWay(context, attachment, addresses, wiring)
    await connect(context, attachment, addresses, place, wiring, sandbox)
  } catch (error) {
    await undo(context, attachment, reservations)
    throw error
  }
  context.attachments.set({
    ...attachment,
    link: hostName(attachment),
    addresses: addresses.map(({ prefix }) => prefix.ip),
    ...(attachment.ipam && { dataDir: attachment.ipam.dataDir }),
    ...(attachment.hostPorts === undefined ? {} : { hostPorts: attachment.hostPorts })
  })
  return resultOf(attachment, addresses, place.node, wiring)
}

/** What the configuration says of DNS counts more than a file that it names. */
function withDns(attachment: VethAttachment): VethAttachment {
  const file = attachment.ipam?.resolvConf
  return file === undefined || attachment.dns !== undefined ? attachment : { ...attachment, dns: readResolvConf(file) }
}

function refuseNoGateway(
  { interface: { like }, network }: VethAttachment,
  addresses: readonly InterfaceAddress[]
): void {
  const alone = addresses.find(({ gateway }) => gateway === undefined)
  if (like?.kind !== 'ptp' || alone === undefined) return
  throw new WeftError(
    'GATEWAY_MISSING',
    `${formatPrefix(alone.prefix)} has no gateway, and ptp reaches everything by one`,
    `give the address a gateway in ipam of network ${network}`
  )
}

function refuseImpossible(context: PodContext, attachment: VethAttachment, wiring: Wiring): void {
  const { interface: wish } = attachment
  const named = linkNamed(context.host.observed, wish.bridge)
  if (wiring.mode === 'bridge' && named !== undefined && named.form?.type !== 'bridge') {
    throw new WeftError(
      'BRIDGE_INVALID',
      `"${wish.bridge}" already exists but is not a bridge`,
      `rename that link, or name another bridge in network ${attachment.network}`
    )
  }
  const own = linkNamed(context.host.observed, hostName(attachment))
  if (own === undefined) return
  const whose = mayBeOf(attachment, own.alias) ? 'this attachment exists already' : `it belongs to "${own.alias}"`
  throw new WeftError(
    'INTERFACE_EXISTS',
    `the host's link ${own.name} for ${attachment.because} is there already: ${whose}`,
    'a runtime must send DEL before it sends ADD for the same container and interface again'
  )
}

/** As the reference's bridge: IPv4 bears one network on a bridge, IPv6 several that do not overlap; forceAddress lets the new one win. */
async function giveWay(
  context: PodContext,
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  wiring: Wiring
): Promise<void> {
  const { like } = attachment.interface
  if (wiring.bridge === undefined || (like?.kind === 'bridge' && !like.isGateway)) return
  const { name } = wiring.bridge
  for (const { prefix, gateway } of addresses) {
    if (gateway === undefined) continue
    const wanted: Prefix = { ip: gateway, length: prefix.length }
    for (const object of context.host.observed.values()) {
      if (object.kind !== 'address' || object.device !== name || !disagree(object, wanted)) continue
      const other = formatPrefix(object.prefix)
      if (like?.kind === 'bridge' && like.forcesAddress) {
        throwFailure(attachment, await context.host.discard([object]))
        continue
      }
      throw new WeftError(
        'BRIDGE_INVALID',
        `"${name}" already has an address different from ${formatIp(gateway)}/${prefix.length}: ${other}`,
        `it is from an earlier subnet of this node or from another network: once no pod uses it any more, "ip address del ${other} dev ${name}"; or name another bridge in network ${attachment.network}`
      )
    }
  }
}

function disagree({ prefix, scope = 0 }: Address, wanted: Prefix): boolean {
  if (prefix.ip.family !== wanted.ip.family || scope !== 0) return false
  if (sameIp(prefix.ip, wanted.ip) && prefix.length === wanted.length) return false
  return wanted.ip.family === 4 || overlaps(prefix, wanted)
}

async function connect(
  context: PodContext,
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  place: PodPlace,
  wiring: Wiring,
  sandbox: Sandbox
): Promise<void> {
  const { shared, bridge, host: own, inside } = podObjects(attachment, addresses, place.node, wiring)
  const host = [...own, ...forwardingFor(context, attachment, addresses, place)]
  await timed(context, 'ADD', 'host', async () => {
    // By itself, since others may be making the same bridge: what they have under way is waited for.
    if (bridge.length > 0) throwFailure(attachment, await context.host.want(bridgeOwnerOf(attachment), bridge))
    const pods = [ownerOf(attachment), host] as const
    const all = shared.length === 0 ? [pods] : [context.attachments.shared.with(shared), pods]
    throwFailure(attachment, await context.host.wantAll(all))
  })
  await timed(context, 'ADD', 'inside', async () => {
    throwFailure(attachment, await applyInside(sandbox, inside))
    if (addresses.length > 0 && !attachment.interface.staysDown) await carried(context, attachment)
  })
  // From now on the link is watched, not made again: a pair that vanished took the pod's addresses and routes along.
  context.host.keep(ownerOf(attachment), host.map(withoutPeer))
}

/** So that the pod's first packet is not lost: the reference's bridge waits for this, too, and as long. */
async function carried({ kernel }: PodContext, attachment: VethAttachment): Promise<void> {
  if (await kernel.runs(hostName(attachment), PATIENCE)) return
  throw new WeftError(
    'INTERFACE_DOWN',
    `the host's link ${hostName(attachment)} for ${attachment.because} has no carrier after ${PATIENCE / 1000} s`,
    `look for who sets ${attachment.ifname} down inside the container, or that link on the host; the runtime tries again`
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

/** A veth that is to be kept as it is; should it go, nothing makes a new one. */
const withoutPeer = (object: KernelObject): KernelObject =>
  object.kind === 'link' && object.form?.type === 'veth' ? { ...object, form: { type: 'veth' } } : object

function throwFailure(attachment: VethAttachment, outcomes: readonly Outcome[]): void {
  const failure = failureIn(outcomes)
  if (failure === undefined) return
  const { change, error } = failure
  const isPair = change.object.kind === 'link' && change.object.name === hostName(attachment)
  if (!isPair || !('errnoName' in error) || error.errnoName !== 'EEXIST') throw error
  throw new WeftError(
    'INTERFACE_EXISTS',
    `${attachment.ifname} exists already in ${attachment.sandbox}: ${reasonOf(error)}`,
    'delete that interface, or let the runtime use another name; it was not touched',
    { cause: error }
  )
}

/**
 * What went wrong first is the error; what goes wrong now is logged, and the runtime's DEL tries again. As long as the link may be there, its address
 * stays reserved.
 */
async function undo(
  context: PodContext,
  attachment: VethAttachment,
  reservations: Reservations | undefined
): Promise<void> {
  try {
    await takeDown(context, attachment, 'ADD')
    if (reservations !== undefined) await giveBack(context, reservations, attachment)
  } catch (error) {
    context.log.warn(
      { err: error, because: attachment.because },
      'undoing a failed ADD is incomplete; the DEL that follows tries again'
    )
  }
}
