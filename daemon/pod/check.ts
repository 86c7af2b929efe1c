// CHECK: the difference between what an attachment should be and what it is, which must be empty; its text is the error.
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
import { openSandbox, whereItStands } from './netns.ts'
import { placeOf } from './place.ts'
import { rangeSetsOf } from './range-sets.ts'
import { timed } from './timing.ts'
import { wiringOf } from './wiring.ts'

/**
 * `previous` is the result of the ADD, as the runtime kept it. What later plugins of a chain may change is not compared: MTU, further routes and
 * addresses, a MAC that `previous` tells. Errors: DIFFERENT with one line per difference, in the syntax of `ip`.
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
      ...differencesIn(wanted.inside, inside, `in ${attachment.sandbox}`, wanted.told)
    ]
    refuseDifferences(`${attachment.because} is not as it was set up`, wrong)
  })
}

/** The reservations, with gateways from their ranges; what `previous` tells of this interface must be the same addresses. */
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
    // Neither link nor address: there is nothing that a DEL would have to take away, which only this error says.
    if (linkNamed(context.host.observed, hostName(attachment)) === undefined)
      throw new WeftError(
        'CONTAINER_UNKNOWN',
        `${attachment.because} is not known here: it has neither a link on this host nor a reservation in ${reservations.directory}`,
        'restart the pod, if it still runs'
      )
    throw new WeftError(
      'DIFFERENT',
      `${attachment.because} has no reservation in ${reservations.directory}`,
      'restart the pod: its address may be given to another one'
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

/** `told`: what is inside as it was set up, for the error; `inside` is without what may have changed since. */
type Wanted = {
  readonly host: readonly KernelObject[]
  readonly inside: readonly KernelObject[]
  readonly told: readonly KernelObject[]
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
  // A pod that flannel's plugins set up has a link of another name, whose MAC and mode we did not choose.
  const foreign = ends.length > 0 && !ends.some(({ name }) => name === hostName(attachment)) ? ends[0]?.name : undefined
  // The mode is that of the ADD: a bridge may have come since.
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
      .map((object) => (object.kind === 'route' && !isDefault(object) ? whereItStands(object, observed) : object))
      .map((object) => insideWanted(object, mac, foreign !== undefined)),
    told: inside
  }
}

/** A runtime hands CHECK the capabilities of the ADD; who does not is not told that the pod has too much. */
function withPorts(context: PodContext, attachment: VethAttachment): VethAttachment {
  const { hostPorts = context.attachments.get(attachment)?.hostPorts } = attachment
  return hostPorts === undefined ? attachment : { ...attachment, hostPorts }
}

/** Settings and neighbours are not read back; what they bring about is: addresses and routes. */
const isCompared = ({ kind }: KernelObject): boolean => kind !== 'sysctl' && kind !== 'neighbour'

/** A plugin behind may have changed the MTU, and portmap switches hairpin mode on. */
function asLaterPluginsLeaveIt(object: KernelObject): KernelObject {
  if (object.kind !== 'link') return object
  const { mtu: _, hairpin, ...rest } = object
  return hairpin ? { ...rest, hairpin } : rest
}

const isDefault = ({ destination }: Route): boolean => destination.length === 0

/** A default route counts by its family, as in the reference: another interface or plugin may have given the pod a further one. */
function insideWanted(object: KernelObject, mac: Mac | undefined, foreign: boolean): KernelObject {
  if (object.kind === 'link') return { ...object, ...(mac === undefined ? {} : { mac }) }
  if (object.kind !== 'route') return object
  const others = isDefault(object) ? ['protocol', 'device', 'gateway', 'onlink'] : ['protocol']
  const left = isDefault(object) || foreign ? others : []
  return Object.fromEntries(Object.entries(object).filter(([field]) => !left.includes(field))) as Route
}

/** `sentence` says what is not as it was, `lines` in what. Errors: DIFFERENT, where there are any. */
export function refuseDifferences(sentence: string, lines: readonly string[]): void {
  if (lines.length === 0) return
  const cure = 'restart the pod; weftd puts right what is on the host by itself'
  throw new WeftError('DIFFERENT', `${sentence}: ${lines.join('; ')}`, cure)
}

/** One line for each difference, in the syntax of `ip`, `nft` and `tc`. `told`: what is named where something is missing. */
export function differencesIn(
  wanted: readonly KernelObject[],
  observed: State,
  where: string,
  told: readonly KernelObject[] = wanted
): readonly string[] {
  const state = stateOf(wanted)
  const whole = stateOf(told)
  return difference(state, observed, state.keys()).map((change) => {
    const object = withoutReason(
      change.instead === undefined ? (whole.get(keyOf(change.object)) ?? change.object) : change.object
    )
    return `${where}: ${changeText({ ...change, object })}`
  })
}

const withoutReason = (object: KernelObject): KernelObject => {
  const { because: _, ...rest } = object
  return rest as KernelObject
}
