// ADD: reserve, make what is desired on the host and in the container, answer; or undo all of it and say why.
import { formatIp, overlaps, type Prefix, sameIp } from '../../ipam/address.ts'
import { capacity, describe, type PoolAddress } from '../../ipam/pool.ts'
import { type Reservations, ReservationsUnusable } from '../../ipam/reservations.ts'
import type { Result } from '../../plugins/cni/types.ts'
import { reasonOf, WeftError } from '../error.ts'
import { CONDITIONS } from '../health.ts'
import type { Outcome, Sandbox } from '../state/kernel.ts'
import type { Address, KernelObject } from '../state/object.ts'
import { hostName, mayBeOf, ownerOf } from './names.ts'
import { podObjects, type Wiring } from './objects.ts'
import { giveBack, takeDown } from './release.ts'
import { resultOf } from './result.ts'
import {
  failureIn,
  linkNamed,
  type PodPlace,
  type PodSurroundings,
  placeForAdd,
  poolsOf,
  put,
  timed,
  type VethAttachment,
  wiringOf
} from './surroundings.ts'

/** Errors: WeftError, whatever blocks ADD among them. Nothing is left behind by one that fails. */
export async function add(around: PodSurroundings, attachment: VethAttachment): Promise<Result> {
  const asked = around.now()
  return around.attachments.inTurn(attachment, () => {
    around.timings('ADD', 'queue', (around.now() - asked) / 1000)
    return attach(around, attachment)
  })
}

async function attach(around: PodSurroundings, attachment: VethAttachment): Promise<Result> {
  const place = placeForAdd(around)
  const wiring = wiringOf(around, attachment, place)
  refuseImpossible(around, attachment, wiring)
  const { sandbox: path = '' } = attachment
  using sandbox = await timed(around, 'ADD', 'sandbox', () => around.kernel.sandbox(path))
  const reservations = attachment.ipam && around.reservations(attachment.ipam.dataDir, attachment.network)
  const addresses =
    reservations === undefined
      ? []
      : await timed(around, 'ADD', 'reserve', () => reserve(around, reservations, attachment, place))
  try {
    refuseOtherGateways(around, attachment, addresses, wiring)
    await connect(around, attachment, addresses, place, wiring, sandbox)
  } catch (error) {
    await undo(around, attachment, reservations)
    throw error
  }
  around.attachments.set({
    ...attachment,
    link: hostName(attachment),
    addresses: addresses.map(({ prefix }) => prefix.ip)
  })
  return resultOf(attachment, addresses, place.node, wiring)
}

function refuseImpossible(around: PodSurroundings, attachment: VethAttachment, wiring: Wiring): void {
  const { interface: wish } = attachment
  if (wish.isPromiscuous) {
    throw new WeftError(
      'UNSUPPORTED',
      `promiscMode of network ${attachment.network} is not supported`,
      'use hairpinMode, which serves the same purpose'
    )
  }
  const named = linkNamed(around.host.observed, wish.bridge)
  if (wiring.mode === 'bridge' && named !== undefined && named.form?.type !== 'bridge') {
    throw new WeftError(
      'BRIDGE_INVALID',
      `"${wish.bridge}" already exists but is not a bridge`,
      `rename that link, or name another bridge in network ${attachment.network}`
    )
  }
  const own = linkNamed(around.host.observed, hostName(attachment))
  if (own === undefined) return
  const whose = mayBeOf(attachment, own.alias) ? 'this attachment exists already' : `it belongs to "${own.alias}"`
  throw new WeftError(
    'INTERFACE_EXISTS',
    `the host's link ${own.name} for ${attachment.because} is there already: ${whose}`,
    'a runtime must send DEL before it sends ADD for the same container and interface again'
  )
}

/** As the reference's bridge: IPv4 bears one network on a bridge, IPv6 several that do not overlap. */
function refuseOtherGateways(
  around: PodSurroundings,
  attachment: VethAttachment,
  addresses: readonly PoolAddress[],
  wiring: Wiring
): void {
  if (wiring.bridge === undefined) return
  const { name } = wiring.bridge
  for (const { prefix, gateway } of addresses) {
    const wanted: Prefix = { ip: gateway, length: prefix.length }
    for (const object of around.host.observed.values()) {
      if (object.kind !== 'address' || object.device !== name || !disagree(object, wanted)) continue
      const other = `${formatIp(object.prefix.ip)}/${object.prefix.length}`
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

async function reserve(
  around: PodSurroundings,
  reservations: Reservations,
  attachment: VethAttachment,
  place: PodPlace
): Promise<readonly PoolAddress[]> {
  const sets = poolsOf(attachment, place)
  const requested = attachment.ipam?.requested ?? []
  try {
    let answer = await reservations.reserve(attachment, sets, requested)
    if (answer.kind === 'exhausted') {
      await reservations.collect(() => false)
      answer = await reservations.reserve(attachment, sets, requested)
    }
    around.health.clear('STATE_UNWRITABLE')
    switch (answer.kind) {
      case 'reserved':
        around.health.clear('POOL_EXHAUSTED')
        return answer.addresses
      case 'held':
        throw new WeftError(
          'ADDRESS_HELD',
          `${formatIp(answer.ip)} has been allocated to ${attachment.containerId}, duplicate allocation is not allowed`,
          'a runtime must send DEL before it sends ADD for the same container and interface again'
        )
      case 'refused':
        throw new WeftError('ADDRESS_REFUSED', answer.why, 'ask for an address that is free, or for none')
      case 'exhausted': {
        const detail = `no IP addresses available in range set: ${describe(answer.set)}: all ${capacity(answer.set)} are taken (${answer.taken} reservations in ${reservations.directory})`
        // Ranges of a configuration may run dry while the node's own subnet has room: that is no condition of the node.
        if (attachment.ipam?.ranges.length === 0) around.health.raise('POOL_EXHAUSTED', detail)
        throw new WeftError(
          'POOL_EXHAUSTED',
          `${CONDITIONS.POOL_EXHAUSTED.title}: ${detail}`,
          CONDITIONS.POOL_EXHAUSTED.cure
        )
      }
    }
  } catch (error) {
    if (!(error instanceof ReservationsUnusable)) throw error
    around.health.raise('STATE_UNWRITABLE', error.message)
    throw unwritable(error)
  }
}

const unwritable = (cause: ReservationsUnusable): WeftError => {
  const { title, cure } = CONDITIONS.STATE_UNWRITABLE
  return new WeftError('STATE_UNWRITABLE', `${title}: ${cause.message}`, cure, { cause })
}

async function connect(
  around: PodSurroundings,
  attachment: VethAttachment,
  addresses: readonly PoolAddress[],
  place: PodPlace,
  wiring: Wiring,
  sandbox: Sandbox
): Promise<void> {
  const { shared, host, inside } = podObjects(attachment, addresses, place.node, wiring)
  await timed(around, 'ADD', 'host', async () => {
    const bridge = `bridge ${attachment.interface.bridge} ${attachment.network}`
    if (shared.length > 0) throwFailure(attachment, await around.host.want(bridge, shared))
    throwFailure(
      attachment,
      await around.host.want(ownerOf(attachment), [...host, ...around.rules(attachment, addresses)])
    )
  })
  await timed(around, 'ADD', 'inside', async () => throwFailure(attachment, await sandbox.apply(inside.map(put))))
  // From now on the link is watched, not made again: a pair that vanished took the pod's addresses and routes along.
  around.host.keep(ownerOf(attachment), [...host.map(withoutPeer), ...around.rules(attachment, addresses)])
}

/** A veth that is to be kept as it is; should it go, nothing makes a new one. */
export const withoutPeer = (object: KernelObject): KernelObject =>
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
  around: PodSurroundings,
  attachment: VethAttachment,
  reservations: Reservations | undefined
): Promise<void> {
  try {
    await takeDown(around, attachment, 'ADD')
    if (reservations !== undefined) await giveBack(around, reservations, attachment)
  } catch (error) {
    around.log.warn(
      { err: error, because: attachment.because },
      'undoing a failed ADD is incomplete; the DEL that follows tries again'
    )
  }
}
