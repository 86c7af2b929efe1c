// Reads nftables elements and limits of pods back from the kernel: a restarted weftd wants them as they are.
import { FAMILIES } from '../../../ipam/address.ts'
import type { Bandwidth, HostPort, RateLimit } from '../../../plugins/attachment.ts'
import { parseAlias } from '../../attachment/identity.ts'
import { gatewayDevice } from '../../attachment/vlans.ts'
import { bridgePortBaseFor } from '../../firewall/bridge-ports.ts'
import { conditionedPortBase, hostPortBase, hostPortDevice, translationBase } from '../../firewall/host-ports.ts'
import { masqueradeBaseFor } from '../../firewall/pod-masquerade.ts'
import { conditionsOf } from '../../firewall/port-conditions.ts'
import { forwardAcceptReadBack } from '../../firewall/subnet-chain.ts'
import {
  elementsByMark,
  elementsOf,
  HOST_PORT_DEVICES,
  type HostPortEntry,
  hostPortOf,
  translatedPodSet
} from '../../state/host-port.ts'
import {
  type Discipline,
  type KernelObject,
  type Link,
  linkNamed,
  type NftElement,
  type State,
  stateOf
} from '../../state/object.ts'
import { CHAINED_MARK, ifbName, NFT_TABLE } from '../../state/ownership.ts'

export type Readback = {
  readonly nft: {
    /**
     * The elements of the pod behind this link of the host, and the guard of that link; or, by a mark, the elements of
     * a chained plugin.
     */
    objects(linkOrMark: string): readonly KernelObject[]
    /** The host ports among them. */
    hostPorts(linkOrMark: string): readonly HostPort[]
    /** All marks of chained plugins. */
    marks(): readonly string[]
  }
  /** Token buckets on the pod's link and on its ifb, the redirection, and the ifb. */
  limits(link: string, ifb?: string): readonly KernelObject[]
  /**
   * Chains, maps and sets that the elements found depend on, and bridges in the set of guarded devices: a bridge stays
   * guarded as long as it exists.
   */
  readonly shared: readonly KernelObject[]
}

export function readBack(observed: State): Readback {
  const extras = stateOf([...observed.values()].filter(({ kind }) => kind === 'nft-element' || kind === 'qdisc'))
  const guarded = guardedIn(extras)
  return {
    nft: {
      objects: (link) => [
        ...elementsOf(link, extras).flatMap((element) => withRelated(element, observed)),
        ...(guarded.includes(link) ? hostPortDevice(link) : [])
      ],
      marks: () => [...elementsByMark(CHAINED_MARK, extras).keys()],
      hostPorts: (link) =>
        elementsOf(link, extras)
          .flatMap((element) => hostPortOf(element) ?? [])
          .map(asHostPort)
    },
    limits: (link, ifb = ifbName(link)) => limitsOf(link, extras, linkNamed(observed, ifb)),
    shared: sharedIn(guarded, extras, observed)
  }
}

/** An element with what belongs to it: the sysctl of a guarded device, the chain of an accepted address. */
const withRelated = (element: NftElement, observed: State): readonly KernelObject[] =>
  element.set === HOST_PORT_DEVICES
    ? hostPortDevice(element.key.replaceAll('"', ''), element.comment)
    : (forwardAcceptReadBack(element, observed) ?? [element])

const guardedIn = (extras: State): readonly string[] =>
  [...extras.values()].flatMap((object) =>
    object.kind === 'nft-element' && object.table === NFT_TABLE && object.set === HOST_PORT_DEVICES
      ? [object.key.replaceAll('"', '')]
      : []
  )

/** Bridges of ports, and the gateways of their VLANs: one that was deleted is made again. */
const bridgesInAliases = (observed: State): ReadonlySet<string> =>
  new Set(
    [...observed.values()].flatMap((object) => {
      const bridge = object.kind === 'link' ? parseAlias(object.alias)?.bridge : undefined
      if (bridge === undefined) return []
      const { name, vlans } = bridge
      return [name, ...(vlans === undefined ? [] : [gatewayDevice({ bridge: name, vlans })])]
    })
  )

function sharedIn(guarded: readonly string[], extras: State, observed: State): readonly KernelObject[] {
  const madeAgain = bridgesInAliases(observed)
  const isBridge = (device: string) =>
    ['bridge', 'vlan'].includes(linkNamed(observed, device)?.form?.type ?? '') || madeAgain.has(device)
  const bridges = guarded.filter(isBridge)
  const elements = [...extras.values()].filter(isElement)
  const sets = [...new Set(elements.map((element) => element.set))]
  const hasPorts = elements.some((element) => hostPortOf(element) !== undefined)
  return [
    ...(hasPorts || bridges.length > 0 ? hostPortBase() : []),
    ...sets
      .flatMap((set) => conditionsOf(set) ?? [])
      .flatMap((each) => conditionedPortBase(each.family, each.conditions)),
    ...(sets.some((set) => TRANSLATED.has(set)) ? translationBase() : []),
    ...masqueradeBaseFor(elements, observed),
    ...bridgePortBaseFor(elements, isBridge),
    ...bridges.flatMap((bridge) => hostPortDevice(bridge))
  ]
}

const TRANSLATED: ReadonlySet<string> = new Set(FAMILIES.map(translatedPodSet))

const isElement = (object: KernelObject): object is NftElement =>
  object.kind === 'nft-element' && object.table === NFT_TABLE

/** An element for all addresses is of one family, and so is the host port. */
const asHostPort = ({ protocol, port, at, to }: HostPortEntry): HostPort => ({
  protocol,
  hostPort: port,
  containerPort: to.port,
  hostIp: at ?? { family: to.ip.family, value: 0n }
})

function limitsOf(link: string, extras: State, ifb: Link | undefined): readonly KernelObject[] {
  const qdiscs = [...extras.values()].filter(
    (object) =>
      object.kind === 'qdisc' &&
      (object.device === link || object.device === ifb?.name) &&
      isReadable(object.discipline)
  )
  if (ifb?.form?.type !== 'ifb') return qdiscs
  const { name, form, mtu, alias } = ifb
  return [{ kind: 'link', name, form, up: true, ...(mtu && { mtu }), ...(alias && { alias }) }, ...qdiscs]
}

/**
 * Whether weftd could make it again: not other programs' disciplines, nor a division whose parts a dump does not show.
 */
const isReadable = (discipline: Discipline): boolean =>
  discipline.type !== 'other' && (discipline.type !== 'htb' || discipline.division !== undefined)

/** The limits as they were configured, read back from queueing disciplines: in bits, where the kernel counts bytes. */
export function limitsAsConfigured(link: string, objects: readonly KernelObject[]): { readonly bandwidth?: Bandwidth } {
  const limitOn = (device: string): RateLimit | undefined => {
    for (const object of objects) {
      if (object.kind !== 'qdisc' || object.device !== device) continue
      const bucket = object.discipline.type === 'htb' ? object.discipline.division : object.discipline
      if (bucket !== undefined && 'rate' in bucket)
        return { rateBitsPerSecond: bucket.rate * 8, burstBits: bucket.burst * 8 }
    }
    return undefined
  }
  const [ingress, egress] = [limitOn(link), limitOn(ifbName(link))]
  if (ingress === undefined && egress === undefined) return {}
  return { bandwidth: { ...(ingress && { ingress }), ...(egress && { egress }) } }
}
