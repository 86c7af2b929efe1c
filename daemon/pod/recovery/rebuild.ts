// Rebuilds the registry of pods after a restart from link aliases, routes and reservations; notices links that vanish
// later.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Ip, sameIp } from '../../../ipam/address.ts'
import type { PoolAddress } from '../../../ipam/pool.ts'
import { BOOT_DIRECTORY } from '../../../ipam/reservations.ts'
import { DEFAULT_BRIDGE, DEFAULT_DATA_DIR, type Pod } from '../../../plugins/attachment.ts'
import { bridgeObjects, familiesOf, gatewayObjects } from '../../attachment/bridge.ts'
import { carriesPackets, connected, connectedLinkLocal } from '../../attachment/device.ts'
import {
  type Alias,
  bridgeOwnerOf,
  hostName,
  type Identity,
  limitsOwnerOf,
  markedOwnerOf,
  ownerOf,
  ownersOf,
  parseAlias
} from '../../attachment/identity.ts'
import { neighbourProxies, routedHost } from '../../attachment/routed.ts'
import { portVlans } from '../../attachment/vlans.ts'
import { reasonOf } from '../../base/error.ts'
import { chainsAround, purposeOf, subnetChain } from '../../firewall/subnet-chain.ts'
import { elementsOf } from '../../state/host-port.ts'
import { LEAST_MTU } from '../../state/node.ts'
import {
  type Address,
  addressesIn,
  type KernelObject,
  keyOf,
  type Link,
  linkNamed,
  type State
} from '../../state/object.ts'
import { ROUTE_PROTOCOL } from '../../state/ownership.ts'
import { isDefaultVlan } from '../../state/vlans.ts'
import type { PodNote } from '../attachments.ts'
import { unlimit } from '../chained/limits.ts'
import type { PodContext } from '../context.ts'
import { limitsAsConfigured, type Readback, readBack } from './readback.ts'

/** Milliseconds after which a link missing from a dump counts as gone: a dump may be older than the link. */
const DUMP_AGE = 1_000

/** `ifname` is empty where an old plugin did not write it. */
export type Reserved = Identity & { readonly ip: Ip }

/**
 * Wants again what pods of an earlier weftd have on the host, before objects without an owner may be removed. Pods in
 * its file (`notes`) that the kernel no longer has have vanished meanwhile. Resolves with the number of pods.
 */
export async function rebuild(
  context: PodContext,
  dataDir: string = DEFAULT_DATA_DIR,
  notes: readonly PodNote[] = []
): Promise<number> {
  const { host, attachments, networks } = context
  const wanted: (readonly [string, readonly KernelObject[]])[] = []
  let pods = 0
  const { nft, limits, shared } = readBack(host.observed)
  const byLink = new Map(notes.map((note) => [hostName(note), note]))
  for (const link of host.observed.values()) {
    if (link.kind !== 'link' || link.form?.type !== 'veth') continue
    const alias = parseAlias(link.alias)
    if (alias === undefined) continue
    const noted = byLink.get(link.name)
    const store = networks.reservations(noted?.dataDir ?? dataDir, alias.network)
    const who =
      named(link, noted ?? {}, alias) ??
      named(link, ...(await store.list()).map(({ owner }) => ({ network: alias.network, ...owner })))
    if (who === undefined || attachments.get(who) !== undefined) continue
    const held = await store.of(who)
    const because = `${alias.pod === undefined ? `container ${who.containerId.slice(0, 12)}` : `pod ${alias.pod}`}, ${who.ifname} in network ${who.network}`
    const objects = [
      ...readBackPod(link, held, context, alias),
      ...masquerading(held, host.observed),
      ...nft.objects(link.name),
      ...limits(link.name)
    ]
    wanted.push([ownerOf(who), objects.map((object) => ({ ...object, because }))])
    const bridge = objects.find((object) => object.kind === 'link')?.master
    if (bridge) wanted.push([bridgeOwnerOf(who), readBackBridge(context, bridge, alias)])
    pods++
    const hostPorts = nft.hostPorts(link.name)
    attachments.set({
      ...{ ...who, link: link.name, addresses: held, because, dataDir: noted?.dataDir ?? dataDir },
      ...(hostPorts.length > 0 && { hostPorts }),
      ...limitsAsConfigured(link.name, limits(link.name)),
      ...(alias.pod !== undefined && { pod: podNamed(alias.pod) })
    })
    attachments.ports.claim(ownerOf(who), because, hostPorts)
  }
  wanted.push(...readBackChained(context, nft, limits))
  if (shared.length > 0) wanted.push(attachments.shared.with(shared))
  noteVanished(context, notes)
  await host.wantAll(wanted)
  await context.updateForeignAccepts()
  return pods
}

/** Pods that an earlier weftd knew and whose link is gone. */
function noteVanished({ host, attachments, now }: PodContext, notes: readonly PodNote[]): void {
  for (const note of notes)
    if (linkNamed(host.observed, hostName(note)) === undefined)
      attachments.vanished.set(ownerOf(note), { ...note, since: now() })
}

/**
 * Frees reservations from before a reboot now, not at the first pod of each network. Never rejects: a directory that
 * can't be read is retried then.
 */
export async function emptyAfterReboot(
  { networks, log }: Pick<PodContext, 'networks' | 'log'>,
  dataDir: string = DEFAULT_DATA_DIR
): Promise<void> {
  const seen = join(dataDir, BOOT_DIRECTORY)
  const warn = (error: unknown, network?: string) =>
    log.warn({ network, dataDir, reason: reasonOf(error) }, "the reservations can't be read yet")
  try {
    for (const network of existsSync(seen) ? readdirSync(seen) : [])
      await networks
        .reservations(dataDir, network)
        .list()
        .catch((error) => warn(error, network))
  } catch (error) {
    warn(error)
  }
}

/** Reservations with an owner, in every network of the data directory. */
export async function reserved(
  { networks }: Pick<PodContext, 'networks'>,
  dataDir: string = DEFAULT_DATA_DIR
): Promise<readonly Reserved[]> {
  const folders = existsSync(dataDir) ? readdirSync(dataDir, { withFileTypes: true }) : []
  const names = folders.filter((each) => each.isDirectory()).map(({ name }) => name)
  const lists = await Promise.all(
    names.map(async (network) =>
      (await networks.reservations(dataDir, network).list()).flatMap(({ ip, owner }) =>
        owner === undefined ? [] : [{ network, ifname: '', ...owner, ip }]
      )
    )
  )
  return lists.flat()
}

/** An alias has `namespace/name`, or only the name where the runtime has no namespaces. */
function podNamed(text: string): Pod {
  const at = text.indexOf('/')
  return { namespace: text.slice(0, Math.max(at, 0)), name: text.slice(at + 1) }
}

/** Objects of portmap, firewall and bandwidth, for Weft's interfaces and for others'. */
function readBackChained(
  { host: { observed }, attachments }: PodContext,
  nft: Readback['nft'],
  limits: Readback['limits']
): readonly (readonly [string, readonly KernelObject[]])[] {
  const kept = nft.marks().map((mark) => {
    const owner = markedOwnerOf(mark)
    const [first] = elementsOf(mark, observed)
    // "ports-… pod default/web-1, eth0 in network lab", cut to the length of a comment.
    const because = first?.comment?.slice(mark.length + 1) ?? ''
    attachments.ports.claim(owner, because, nft.hostPorts(mark))
    return [owner, nft.objects(mark).map((object) => ({ ...object, because }))] as const
  })
  const redirected = [...observed.values()].flatMap((object) => {
    if (object.kind !== 'qdisc' || object.discipline.type !== 'redirect') return []
    const alias = parseAlias(linkNamed(observed, object.discipline.to)?.alias)
    const who = alias?.ifname === undefined ? undefined : { ...alias, ifname: alias.ifname }
    if (who === undefined || attachments.get(who) !== undefined) return []
    attachments.limited.set(object.device, who)
    return [[limitsOwnerOf(who), limits(object.device, object.discipline.to)] as const]
  })
  return [...kept, ...redirected]
}

/** The candidate that this link belongs to. */
function named(link: Link, ...candidates: readonly Partial<Identity>[]): Identity | undefined {
  for (const { network, containerId, ifname } of candidates) {
    if (network === undefined || containerId === undefined || ifname === undefined) continue
    if (hostName({ network, containerId, ifname }) === link.name) return { network, containerId, ifname }
  }
  return undefined
}

/** The host's objects of a pod, from the kernel and from the reservations, either of which may be incomplete. */
function readBackPod(
  link: Link,
  held: readonly Ip[],
  { host: { observed }, self }: PodContext,
  known: Alias
): readonly KernelObject[] {
  const { name, mac, alias, mtu, hairpin, isolated, master } = link
  const gateways = gatewaysOn(name, observed)
  const kept: Link = {
    kind: 'link',
    name,
    form: { type: 'veth' },
    up: true,
    ...(mac === undefined ? {} : { mac }),
    ...(alias === undefined ? {} : { alias }),
    ...(mtu === undefined ? {} : { mtu })
  }
  // The bridge of a port that lost it, if nothing else is known.
  const guess = gateways.length === 0 && held.length > 0 ? DEFAULT_BRIDGE : undefined
  const bridge = master || (known.bridge?.name ?? guess)
  if (bridge !== undefined)
    return [
      { ...kept, master: bridge, ...(hairpin === undefined ? {} : { hairpin }), ...(isolated && { isolated }) },
      ...vlansOf(name, known, observed)
    ]
  const routes = [...observed.values()].flatMap((object) =>
    object.kind === 'route' && object.device === name && object.protocol === ROUTE_PROTOCOL
      ? [object.destination.ip]
      : []
  )
  const ips = [...held, ...routes.filter((ip) => !held.some((other) => sameIp(ip, other)))]
  const addresses = ips.flatMap((ip): readonly PoolAddress[] => {
    const gateway = gateways.find(({ family }) => family === ip.family)
    return gateway === undefined ? [] : [{ prefix: { ip, length: 0 }, gateway }]
  })
  const ipv6 = self.ipv6 && mtu !== undefined && mtu >= LEAST_MTU[6]
  return [kept, ...routedHost(name, addresses, { ipv6 }), ...proxiesAsTheyAre(ips, observed)]
}

/** As the port's alias says; where that had no room, as they are, if it has other VLANs than a port without them. */
function vlansOf(port: string, { bridge }: Alias, observed: State): readonly KernelObject[] {
  if (bridge !== undefined) return bridge.vlans === undefined ? [] : portVlans(port, bridge.vlans)
  const found = observed.get(keyOf({ kind: 'vlans', device: port, untagged: [], tagged: [] }))
  return found?.kind === 'vlans' && !isDefaultVlan(found) ? [{ ...found, isExact: true }] : []
}

/** On the bridge where they are now; otherwise on the default bridge, which may not exist yet. */
function proxiesAsTheyAre(ips: readonly Ip[], observed: State): readonly KernelObject[] {
  const readBack = [...observed.values()].filter(
    (object) => object.kind === 'proxy' && object.protocol === ROUTE_PROTOCOL && ips.some((ip) => sameIp(ip, object.ip))
  )
  return readBack.length > 0 ? readBack : neighbourProxies(DEFAULT_BRIDGE, ips)
}

/**
 * The chains of the pod's subnets. If its addresses are unknown (another data directory, a third party's IPAM) all of
 * them, which are then removed with the last such pod.
 */
const masquerading = (held: readonly Ip[], observed: State): readonly KernelObject[] => {
  if (held.length > 0) return chainsAround('masquerade', held, observed)
  return [...observed.values()].flatMap((object) => {
    const found = object.kind === 'nft-chain' ? purposeOf(object.chain) : undefined
    return found?.purpose === 'masquerade' ? [subnetChain('masquerade', found.subnet)] : []
  })
}

/** The bridge of a pod with its gateways, as it is; if it is gone, as the alias of its port describes it. */
function readBackBridge({ host: { observed }, self }: PodContext, name: string, alias: Alias): readonly KernelObject[] {
  const link = linkNamed(observed, name)
  const because = 'pods of an earlier weftd'
  const { vlans } = alias.bridge ?? {}
  const config = { bridge: name, ...(vlans === undefined ? {} : { vlans }) }
  if (link === undefined && alias.bridge?.name === name) {
    const addresses = alias.bridge.addresses.map((prefix) => ({ prefix, gateway: prefix.ip }))
    const like = { kind: 'bridge', isGateway: true, forcesAddress: false } as const
    return bridgeObjects({ ...config, like, isPromiscuous: false }, addresses, self, {}).map((object) => ({
      ...object,
      because
    }))
  }
  if (link?.form?.type !== 'bridge') return []
  const { mac } = link
  const gateways = globalAddresses(observed, name)
  const prefixes = gateways.map(({ prefix }) => prefix)
  const families = familiesOf(prefixes, self.ipv6)
  const objects: readonly KernelObject[] = [
    {
      ...{ kind: 'link', name, form: { type: 'bridge' }, up: true },
      ...(mac === undefined ? {} : { mac }),
      ...(link.promiscuous ? { promiscuous: true } : {}),
      ...(vlans === undefined ? {} : { vlanFiltering: true })
    } as const,
    ...carriesPackets(name, families),
    ...gateways.flatMap((gateway) => [gateway, ...connected(name, gateway.prefix)]),
    ...(families.includes(6) && mac !== undefined ? connectedLinkLocal(name, mac) : []),
    ...(vlans?.access === undefined ? [] : gatewayObjects(config, alias.bridge?.addresses ?? [], self))
  ]
  return objects.map((object) => ({ ...object, because }))
}

const globalAddresses = (observed: State, device: string): readonly Address[] =>
  addressesIn(observed, device).filter(({ scope = 0 }) => scope === 0)

/** In routed mode the host's end has the gateways' addresses; a bridge port has at most a link-local one. */
const gatewaysOn = (device: string, observed: State): readonly Ip[] =>
  globalAddresses(observed, device).map(({ prefix }) => prefix.ip)

/**
 * For the reconciler's listener: a pod's link that went with its namespace is no longer desired, so it is not repaired.
 * The reservation stays until the runtime's DEL or GC, or until releaseVanished() frees it after the grace period.
 */
export function forgetVanished(context: PodContext): (changed: readonly KernelObject[] | 'everything') => void {
  const { host, attachments, kernel, log } = context
  const forget = (link: string) => {
    const [limited, known] = [attachments.limited.get(link), attachments.withLink(link)]
    if ((limited ?? known) === undefined || linkNamed(host.observed, link) !== undefined) return
    // The notification may be of the link before a DEL and an ADD of the same container.
    if (kernel.exists(link)) return
    if (limited !== undefined)
      unlimit(context, limited).catch((error) => log.error({ err: error, link }, 'forgetting limits failed'))
    if (known === undefined) return
    attachments.delete(known)
    const { network, containerId, ifname, because, dataDir } = known
    const vanished = { network, containerId, ifname, because, ...(dataDir !== undefined && { dataDir }) }
    attachments.vanished.set(ownerOf(known), { ...vanished, since: context.now() })
    log.info(
      { link, because },
      "a pod's link went with its namespace; its addresses stay reserved for the grace period"
    )
    host
      .wantAll(ownersOf(known).map((owner) => [owner, []]))
      .catch((error) => log.error({ err: error, because: known.because }, 'forgetting a pod failed'))
  }
  return (changed) => {
    if (changed !== 'everything') {
      for (const object of changed)
        if (object.kind === 'link') {
          forget(object.name)
          forgetShared(context, [object.name])
        }
      return
    }
    forgetShared(context, attachments.shared.devices)
    const links = [...attachments.list().map(({ link }) => link), ...attachments.limited.keys()]
    const missing = links.filter((link) => linkNamed(host.observed, link) === undefined)
    if (missing.length > 0) setTimeout(() => missing.forEach(forget), DUMP_AGE).unref()
  }
}

/** A bridge of ours is made again, one of another program is not: what pods shared of it goes with it. */
function forgetShared({ host, attachments, log }: PodContext, devices: readonly string[]): void {
  const gone = devices.filter((name) => [host.observed, host.desired].every((state) => !linkNamed(state, name)))
  const rest = gone.length === 0 ? undefined : attachments.shared.without(gone)
  if (rest === undefined) return
  log.info({ devices: gone }, "another program's bridge is gone, and with it what pods with host ports shared on it")
  host.wantAll([rest]).catch((error) => log.error({ err: error, devices: gone }, 'forgetting a bridge failed'))
}
