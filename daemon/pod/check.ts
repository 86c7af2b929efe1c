// CHECK: compares an attachment with the kernel and the reservations; each difference is a line of the error.
import { formatIp, sameIp } from '../../ipam/address.ts'
import type { InterfaceAddress, VethAttachment } from '../../plugins/attachment.ts'
import { hostName } from '../attachment/identity.ts'
import { podObjects, type Wiring, withGateways } from '../attachment/objects.ts'
import { type AttachmentResult, addressesOf } from '../attachment/result.ts'
import { WeftError } from '../base/error.ts'
import { difference } from '../state/difference.ts'
import {
  type KernelObject,
  keyOf,
  linkNamed,
  type Mac,
  parseMac,
  type Route,
  type State,
  stateOf
} from '../state/object.ts'
import { changeText } from '../state/text.ts'
import type { PodContext, PodPlace } from './context.ts'
import { openSandbox, withActualMetric, withAnyMetric } from './netns.ts'
import { placeOf } from './place.ts'
import { rangeSetsOf } from './range-sets.ts'
import { timed } from './timing.ts'
import { wiringOf } from './wiring.ts'

/**
 * `previous` is the result of the ADD as the runtime kept it. What later plugins of the chain may change is not
 * compared: MTU, further routes and addresses, and the MAC if `previous` reports another one. Errors: DIFFERENT with
 * one line per difference, in the syntax of `ip`.
 */
export async function check(
  context: PodContext,
  attachment: VethAttachment,
  previous: AttachmentResult
): Promise<void> {
  await context.attachments.inTurn(attachment, async () => {
    const place = placeOf(context, attachment)
    using sandbox = await timed(context, 'CHECK', 'sandbox', () => openSandbox(context, attachment))
    const addresses = await timed(context, 'CHECK', 'reserve', () => reserved(context, attachment, place, previous))
    const inside = await timed(context, 'CHECK', 'inside', () => sandbox.read())
    const wanted = wantedOf(context, attachment, addresses, place, previous, inside)
    const wrong = [
      ...differencesIn(wanted.host, context.host.observed, 'on the host'),
      ...differencesIn(wanted.inside, inside, `in ${attachment.sandbox}`, wanted.asSetUp)
    ]
    refuseDifferences(`${attachment.because} is not as it was set up`, wrong)
  })
}

/**
 * The reserved addresses with the gateways of their ranges. `previous` must report the same addresses for this
 * interface.
 */
async function reserved(
  context: PodContext,
  attachment: VethAttachment,
  place: PodPlace,
  previous: AttachmentResult
): Promise<readonly InterfaceAddress[]> {
  if (attachment.ipam === undefined) return withGateways(attachment, attachment.ipamResult?.addresses ?? [])
  const reservations = context.networks.reservations(attachment.ipam.dataDir, attachment.network)
  const held = await reservations.of(attachment)
  if (held.length === 0) {
    // Neither link nor address: a DEL would have nothing to remove, which only this error code tells the runtime.
    if (linkNamed(context.host.observed, hostName(attachment)) === undefined)
      throw new WeftError(
        'CONTAINER_UNKNOWN',
        `${attachment.because} is unknown here: it has no link on this host and no reservation in ${reservations.directory}`,
        'restart the pod if it is still running'
      )
    throw new WeftError(
      'DIFFERENT',
      `${attachment.because} has no reservation in ${reservations.directory}`,
      'restart the pod: its address may be given to another pod'
    )
  }
  const odd = addressesOf(previous, attachment.ifname).find(
    ({ prefix: { ip } }) => !held.some((each) => sameIp(each, ip))
  )
  if (odd !== undefined)
    throw new WeftError(
      'DIFFERENT',
      `${attachment.because} has the address ${formatIp(odd.prefix.ip)} in prevResult, but ${held.map(formatIp).join(', ')} reserved`,
      'restart the pod'
    )
  const ranges = rangeSetsOf(attachment, place).flat()
  return held.flatMap((ip) => {
    const range = ranges.find(
      (each) => each.first.family === ip.family && each.first.value <= ip.value && ip.value <= each.last.value
    )
    return range === undefined ? [] : [{ prefix: { ip, length: range.subnet.length }, gateway: range.gateway }]
  })
}

/** `inside` without what later plugins may change; `asSetUp` is all of it, for the error. */
type Wanted = {
  readonly host: readonly KernelObject[]
  readonly inside: readonly KernelObject[]
  readonly asSetUp: readonly KernelObject[]
}

function wantedOf(
  context: PodContext,
  attachment: VethAttachment,
  addresses: readonly InterfaceAddress[],
  place: PodPlace,
  previous: AttachmentResult,
  observed: State
): Wanted {
  const container = previous.interfaces.find(({ name, sandbox }) => name === attachment.ifname && sandbox !== undefined)
  const ends = previous.interfaces.filter(
    ({ sandbox, name }) => sandbox === undefined && linkNamed(context.host.observed, name)?.form?.type !== 'bridge'
  )
  // A pod set up by flannel's plugins has a link of another name, with their MAC and mode.
  const foreign = ends.length > 0 && !ends.some(({ name }) => name === hostName(attachment)) ? ends[0]?.name : undefined
  // The mode is that of the ADD: the bridge may have been made since.
  const bridged =
    foreign !== undefined ||
    previous.interfaces.some(({ name, sandbox }) => sandbox === undefined && name === attachment.interface.bridge)
  const wiring: Wiring = { ...wiringOf(context, attachment, place), mode: bridged ? 'bridge' : 'routed' }
  const { shared, host, inside } = podObjects(withPorts(context, attachment), addresses, place.node, wiring)
  const mac = parseMac(container?.mac ?? '')
  return {
    host:
      foreign === undefined
        ? [...shared, ...host].filter(isCompared).map(asLaterPluginsLeaveIt)
        : [{ kind: 'link', name: foreign, up: true, master: attachment.interface.bridge }],
    inside: inside
      .filter(isCompared)
      .map((object) => (object.kind === 'route' ? placed(object, observed) : object))
      .map((object) => insideWanted(object, mac, foreign !== undefined)),
    asSetUp: inside
  }
}

/** Runtimes pass CHECK the capabilities of the ADD. From one that does not, the pod's host ports are no difference. */
function withPorts(context: PodContext, attachment: VethAttachment): VethAttachment {
  const { hostPorts = context.attachments.get(attachment)?.hostPorts } = attachment
  return hostPorts === undefined ? attachment : { ...attachment, hostPorts }
}

/** Sysctls and neighbours are not compared; their effects, addresses and routes, are. */
const isCompared = ({ kind }: KernelObject): boolean => kind !== 'sysctl' && kind !== 'neighbour'

/** A later plugin may have changed the MTU, and portmap switches hairpin mode on. */
function asLaterPluginsLeaveIt(object: KernelObject): KernelObject {
  if (object.kind !== 'link') return object
  const { mtu: _, hairpin, ...rest } = object
  return hairpin ? { ...rest, hairpin } : rest
}

const isDefault = ({ destination }: Route): boolean => destination.length === 0

const placed = (route: Route, observed: State): Route =>
  isDefault(route) ? withAnyMetric(route, observed) : withActualMetric(route, observed)

/** Any default route of the family will do, as in the reference: another interface or plugin may have added one. */
function insideWanted(object: KernelObject, mac: Mac | undefined, foreign: boolean): KernelObject {
  if (object.kind === 'link') return { ...object, ...(mac === undefined ? {} : { mac }) }
  if (object.kind !== 'route') return object
  const others = isDefault(object) ? ['protocol', 'device', 'gateway', 'onlink'] : ['protocol']
  const left = isDefault(object) || foreign ? others : []
  return Object.fromEntries(Object.entries(object).filter(([field]) => !left.includes(field))) as Route
}

/** Throws DIFFERENT if there are any `lines`; `sentence` names what differs. */
export function refuseDifferences(sentence: string, lines: readonly string[]): void {
  if (lines.length === 0) return
  const cure = 'restart the pod; weftd repairs what is on the host by itself'
  throw new WeftError('DIFFERENT', `${sentence}: ${lines.join('; ')}`, cure)
}

/** One line per difference, in the syntax of `ip`, `nft` and `tc`. A missing object is printed as `asSetUp` has it. */
export function differencesIn(
  wanted: readonly KernelObject[],
  observed: State,
  where: string,
  asSetUp: readonly KernelObject[] = wanted
): readonly string[] {
  const state = stateOf(wanted.map(withoutBookkeeping))
  const whole = stateOf(asSetUp)
  return difference(state, observed, state.keys()).map((change) => {
    const object = withoutReason(
      change.instead === undefined ? (whole.get(keyOf(change.object)) ?? change.object) : change.object
    )
    return `${where}: ${changeText({ ...change, object })}`
  })
}

/**
 * Without the texts by which a restarted weftd finds its own objects. They have the pod's name, which only ADD may get
 * (CNI_ARGS), and another release may write them otherwise.
 */
function withoutBookkeeping(object: KernelObject): KernelObject {
  if (object.kind === 'link') {
    const { alias: _, ...rest } = object
    return rest
  }
  if (object.kind !== 'nft-element') return object
  const { comment: _, ...rest } = object
  return rest
}

const withoutReason = (object: KernelObject): KernelObject => {
  const { because: _, ...rest } = object
  return rest as KernelObject
}
