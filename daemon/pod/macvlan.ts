// The verbs of macvlan: a link inside the container on top of a device of this host. The host has nothing of it but
// that device and the reservation.
import { formatPrefix, sameIp } from '../../ipam/address.ts'
import type { InterfaceAddress, Macvlan, MacvlanAttachment } from '../../plugins/attachment.ts'
import { address, announced, sysctl } from '../attachment/device.ts'
import { aliasOf, mayBeOf, podMac } from '../attachment/identity.ts'
import { insideRoute, podRoutes } from '../attachment/objects.ts'
import { type AttachmentResult, addressesOf } from '../attachment/result.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { put } from '../state/difference.ts'
import { failureIn, type Sandbox } from '../state/kernel.ts'
import { type KernelObject, type Link, linkNamed, type Mac, parseMac } from '../state/object.ts'
import { devicesOf, isDefaultRoute } from '../state/route.ts'
import { allocate } from './allocate.ts'
import { differencesIn } from './check.ts'
import type { PodContext } from './context.ts'
import { undo } from './disconnect.ts'
import { applyInside, openSandbox, withActualMetric } from './netns.ts'
import { placeForAdd } from './place.ts'
import { release } from './release.ts'
import { readResolvConf } from './resolv-conf.ts'

/**
 * For an IPAM plugin that needs the interface, as dhcp does: makes the link, once. Errors: MASTER_INVALID, MTU_INVALID,
 * INTERFACE_EXISTS, the kernel's.
 */
export function prepareMacvlan(context: PodContext, attachment: MacvlanAttachment): Promise<void> {
  return context.attachments.inTurn(attachment, async () => {
    using sandbox = await openSandbox(context, attachment)
    await makeLink(context, attachment, sandbox)
  })
}

/** Errors: those of prepareMacvlan() and allocate(). One that fails leaves nothing behind. */
export function addMacvlan(context: PodContext, attachment: MacvlanAttachment): Promise<AttachmentResult> {
  return context.attachments.inTurn(attachment, async () => {
    const { ipam } = attachment
    const place = placeForAdd(context, attachment)
    using sandbox = await openSandbox(context, attachment)
    const file = attachment.dns === undefined ? ipam?.resolvConf : undefined
    const dns =
      file === undefined ? (attachment.dns ?? attachment.ipamResult?.dns) : await readResolvConf(context, file)
    // A link that the IPAM plugin needed exists already.
    if (attachment.delegate === undefined || !(await isPrepared(attachment, sandbox)))
      await makeLink(context, attachment, sandbox)
    let addresses = attachment.ipamResult?.addresses ?? []
    try {
      if (ipam !== undefined) addresses = await allocate(context, attachment, ipam, place)
      const failure = failureIn(await applyInside(sandbox, insideObjects(attachment, addresses)))
      if (failure !== undefined) throw failure.error
      return resultOf(attachment, addresses, linkNamed(await sandbox.read(), attachment.ifname), dns ?? {})
    } catch (error) {
      // A reservation that an earlier ADD holds is not this one's to free.
      const isHeld = error instanceof WeftError && error.code === 'ADDRESS_HELD'
      const steps = [
        () => removeLink(attachment, sandbox),
        ...(isHeld ? [] : [() => release(context, attachment, ipam?.dataDir)])
      ]
      await undo(context, attachment, ...steps)
      throw error
    }
  })
}

async function isPrepared(attachment: MacvlanAttachment, sandbox: Sandbox): Promise<boolean> {
  const link = linkNamed(await sandbox.read(), attachment.ifname)
  return link?.form?.type === 'macvlan' && !!link.alias && mayBeOf(attachment, link.alias)
}

async function makeLink(context: PodContext, attachment: MacvlanAttachment, sandbox: Sandbox): Promise<void> {
  const { interface: config, ifname: name, because } = attachment
  const link: Link = { ...linkOf(attachment, masterOf(context, config)), because }
  const failure = config.isMasterInside ? failureIn(await sandbox.apply([put(link)]))?.error : await sandbox.bring(link)
  if (failure !== undefined) {
    if (!('errnoName' in failure) || failure.errnoName !== 'EEXIST') throw failure
    throw new WeftError(
      'INTERFACE_EXISTS',
      `${name} exists already in ${attachment.sandbox}: ${reasonOf(failure)}`,
      'delete that interface, or let the runtime use another name; it was not touched',
      { cause: failure }
    )
  }
  const named: Link = { kind: 'link', name, alias: aliasOf(attachment, attachment.pod) }
  const unnamed = failureIn(await sandbox.apply([put(named)]))
  if (unnamed === undefined) return
  await sandbox.apply([{ do: 'remove', object: link }])
  throw unnamed.error
}

function linkOf(attachment: MacvlanAttachment, madeOn: string): Link {
  const { mode, mtu, mac, broadcastQueue } = attachment.interface
  const hardware = mac === undefined ? ownMac(attachment) : parseMac(mac)
  return {
    kind: 'link',
    name: attachment.ifname,
    form: { type: 'macvlan', mode, madeOn, ...(broadcastQueue === undefined ? {} : { broadcastQueue }) },
    ...(mtu === undefined ? {} : { mtu }),
    ...(hardware === undefined ? {} : { mac: hardware })
  }
}

/**
 * From the container's identity, so that it is known before the address. In mode passthru the link has the device's
 * MAC.
 */
const ownMac = (attachment: MacvlanAttachment): Mac | undefined =>
  attachment.interface.mode === 'passthru' ? undefined : podMac(attachment, [])

/** The lower device; one inside the container is checked by the kernel only. Errors: MASTER_INVALID, MTU_INVALID. */
function masterOf({ host: { observed } }: PodContext, { master, isMasterInside, mtu = 0 }: Macvlan): string {
  const name = master ?? deviceOfDefaultRoute(observed)
  if (name === undefined)
    throw new WeftError(
      'MASTER_INVALID',
      'no default route interface found: this host has no default route, and no master is configured',
      'name the device in "master" of the network configuration'
    )
  if (isMasterInside) return name
  const link = linkNamed(observed, name)
  if (link === undefined)
    throw new WeftError(
      'MASTER_INVALID',
      `Link not found: this host has no device ${name} for macvlan`,
      'correct "master" in the network configuration; "ip link" shows the devices'
    )
  if (link.mtu !== undefined && mtu > link.mtu)
    throw new WeftError(
      'MTU_INVALID',
      `invalid MTU ${mtu}, must be [0, master MTU(${link.mtu})]: ${name} carries no larger packets`,
      'make "mtu" of the network configuration smaller, or leave it out'
    )
  return name
}

function deviceOfDefaultRoute(observed: PodContext['host']['observed']): string | undefined {
  const defaults = [...observed.values()].flatMap((object) => {
    const device = object.kind === 'route' && isDefaultRoute(object) ? devicesOf(object)[0] : undefined
    if (object.kind !== 'route' || device === undefined) return []
    return [{ device, metric: object.metric, family: object.destination.ip.family }]
  })
  return defaults.sort((a, b) => a.family - b.family || a.metric - b.metric)[0]?.device
}

/**
 * In the order in which they are made. arp_notify and ndisc_notify announce the address to the hosts of that network
 * when the link comes up.
 */
function insideObjects(attachment: MacvlanAttachment, addresses: readonly InterfaceAddress[]): readonly KernelObject[] {
  const { ifname: device, because } = attachment
  const has6 = addresses.some(({ prefix }) => prefix.ip.family === 6)
  const routes = routesOf(attachment, addresses)
  return [
    ...announced(device, has6),
    ...(has6 ? [sysctl(`net/ipv6/conf/${device}/disable_ipv6`, '0')] : []),
    ...addresses.map(({ prefix }) => address(device, prefix)),
    { kind: 'link', name: device, up: true } as const,
    ...routes.map((each) => insideRoute(each, device, addresses, false, false))
  ].map((object) => ({ ...object, because }))
}

const routesOf = (attachment: MacvlanAttachment, addresses: readonly InterfaceAddress[]) =>
  podRoutes({ ...attachment, interface: { isDefaultGateway: false, like: { kind: 'ptp' } } }, addresses, [])

/** Errors: DIFFERENT with one line per difference; MASTER_INVALID. */
export async function checkMacvlan(
  context: PodContext,
  attachment: MacvlanAttachment,
  previous: AttachmentResult
): Promise<void> {
  masterOf(context, { ...attachment.interface, mtu: 0 })
  const { ifname: name, ipam, because } = attachment
  const reported = previous.interfaces.find((each) => each.name === name && each.sandbox !== undefined)
  const mac = parseMac(reported?.mac ?? '')
  const held = ipam && (await context.networks.reservations(ipam.dataDir, attachment.network).of(attachment))
  const addresses = addressesOf(previous, name)
  using sandbox = await openSandbox(context, attachment)
  const observed = await sandbox.read()
  const wanted = insideObjects(attachment, addresses)
    .filter(({ kind }) => kind === 'address' || kind === 'route')
    .map((object) => (object.kind === 'route' ? withActualMetric(object, observed) : object))
  const link: Link = {
    ...{ kind: 'link', name, up: true, form: { type: 'macvlan', mode: attachment.interface.mode } },
    ...(mac === undefined ? {} : { mac })
  }
  const wrong = differencesIn([link, ...wanted], observed, `in ${attachment.sandbox}`)
  const unreserved = addresses.filter(
    ({ prefix: { ip } }) => held !== undefined && !held.some((each) => sameIp(each, ip))
  )
  const lines = [...wrong, ...unreserved.map(({ prefix }) => `the reservation of ${formatPrefix(prefix)} is missing`)]
  if (lines.length > 0)
    throw new WeftError('DIFFERENT', `${because} is not as it was set up: ${lines.join('; ')}`, 'restart the pod')
}

/** A link whose namespace is gone is gone, too. */
export function delMacvlan(context: PodContext, attachment: MacvlanAttachment): Promise<void> {
  return context.attachments.inTurn(attachment, async () => {
    const { ipam } = attachment
    const reservations = ipam && context.networks.reservations(ipam.dataDir, attachment.network)
    const held = (await reservations?.of(attachment)) ?? []
    if (attachment.sandbox !== undefined) {
      let open: Sandbox | undefined
      try {
        open = await openSandbox(context, attachment)
      } catch (error) {
        context.log.debug({ err: error, because: attachment.because }, 'the link went with its namespace')
      }
      if (open !== undefined) {
        using sandbox = open
        await removeLink(attachment, sandbox, held.length > 0)
      }
    }
    await release(context, attachment, ipam?.dataDir)
  })
}

/**
 * Only a macvlan whose alias names this attachment. `isHeld`, its address is reserved: also one without alias, as
 * another project's plugin leaves it.
 */
async function removeLink(attachment: MacvlanAttachment, sandbox: Sandbox, isHeld = false): Promise<void> {
  const link = linkNamed(await sandbox.read(), attachment.ifname)
  if (link?.form?.type !== 'macvlan' || !(link.alias ? mayBeOf(attachment, link.alias) : isHeld)) return
  const failure = failureIn(await sandbox.apply([{ do: 'remove', object: link }]))
  if (failure !== undefined) throw failure.error
}

/** Errors: MASTER_INVALID, MTU_INVALID. */
export function statusMacvlan(context: PodContext, { interface: config }: MacvlanAttachment): void {
  masterOf(context, config)
}

function resultOf(
  attachment: MacvlanAttachment,
  addresses: readonly InterfaceAddress[],
  link: Link | undefined,
  dns: AttachmentResult['dns']
): AttachmentResult {
  const { ifname: name, sandbox } = attachment
  return {
    interfaces: [
      {
        name,
        ...(link?.mac && { mac: link.mac }),
        ...(link?.mtu && { mtu: link.mtu }),
        ...(sandbox === undefined ? {} : { sandbox })
      }
    ],
    addresses: addresses.map((each) => ({ interface: 0, ...each })),
    routes: routesOf(attachment, addresses).map(({ config }) => config),
    dns
  }
}
