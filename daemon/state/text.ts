// Prints kernel objects in the syntax of `ip`, `bridge`, `nft` and `tc`: for logs, errors, `weftctl diff` and tests.
import { formatIp, formatPrefix, type Ip, network } from '../../ipam/address.ts'
import type { Change } from './difference.ts'
import type { AdminCall, ForeignAccept, NftChain, NftElement, NftSet } from './firewall-object.ts'
import type { FouEncapsulation } from './ip-tunnel.ts'
import {
  type Discipline,
  type Division,
  differingFields,
  type KernelObject,
  type Link,
  type Route,
  type TunnelPeer,
  type TunnelSocket
} from './object.ts'
import { HOST_SCOPE, LINK_SCOPE, MAIN_TABLE } from './route.ts'
import { type PortVlans, rangesText } from './vlans.ts'

/** One line without the reason, in the syntax of the tool an administrator would use. */
export function textOf(object: KernelObject): string {
  switch (object.kind) {
    case 'link':
      return linkText(object)
    case 'address':
      return words('address', formatPrefix(object.prefix), 'dev', object.device, scopeText(object.scope))
    case 'route':
      return routeText(object)
    case 'neighbour':
      return `neigh ${formatIp(object.ip)} lladdr ${object.mac} dev ${object.device} nud permanent`
    case 'proxy':
      return words(
        `neigh proxy ${formatIp(object.ip)} dev ${object.device}`,
        object.protocol !== 0 && `proto ${object.protocol}`
      )
    case 'fdb':
      return `fdb ${object.mac} dev ${object.device} dst ${formatIp(object.destination)} self permanent`
    case 'fou':
      return words(
        `fou port ${object.port}`,
        object.local && `local ${formatIp(object.local)}`,
        `ipproto ${object.protocol}`
      )
    case 'vlans':
      return vlansText(object)
    case 'sysctl':
      return `sysctl ${object.path}=${object.value}`
    case 'offload':
      return `transmit checksum offload of ${object.device} ${object.transmitChecksum ? 'on' : 'off'}`
    case 'nft-chain':
    case 'nft-set':
    case 'nft-element':
    case 'accept':
    case 'admin-call':
      return firewallText(object)
    case 'qdisc':
      return `qdisc dev ${object.device} ${object.parent} ${disciplineText(object.discipline)}`
    case 'tunnel-socket':
    case 'tunnel-peer':
      return tunnelText(object)
  }
}

type FirewallObject = NftChain | NftSet | NftElement | ForeignAccept | AdminCall

function firewallText(object: FirewallObject): string {
  switch (object.kind) {
    case 'nft-chain':
      return words(
        'chain',
        object.family,
        object.table,
        object.chain,
        object.hook && `{ ${object.hook}; }`,
        `(${object.digests.length} rules)`
      )
    case 'nft-set':
      return words(
        object.form,
        object.family,
        object.table,
        object.set,
        object.declaration && `{ ${object.declaration}; }`
      )
    case 'nft-element':
      return words(
        'element',
        object.family,
        object.table,
        object.set,
        '{',
        object.key,
        object.comment && `comment "${object.comment}"`,
        object.value && `: ${object.value}`,
        '}'
      )
    case 'admin-call':
      return `call of ${object.target} in ${object.tool} chain ${object.family} ${object.table} ${object.chain}`
    case 'accept':
      return `${object.match} ${formatPrefix(object.prefix)} ${object.verdict ?? 'accept'} in ${object.tool} chain ${object.family} ${object.table} ${object.chain}`
  }
}

const tunnelText = (object: TunnelSocket | TunnelPeer): string =>
  object.kind === 'tunnel-socket'
    ? `tunnel ${object.device} local ${formatIp(object.local)} port ${object.port}`
    : `tunnel ${object.device} ${formatPrefix(network(object.subnet))} to ${formatIp(object.to)}`

const words = (...parts: readonly (string | false | undefined)[]): string => parts.filter(Boolean).join(' ')

const vlansText = ({ device, pvid, untagged, tagged, isExact }: PortVlans): string =>
  words(
    `vlans dev ${device}`,
    pvid !== undefined && `pvid ${pvid}`,
    untagged.length > 0 && `untagged ${rangesText(untagged)}`,
    tagged.length > 0 && `tagged ${rangesText(tagged)}`,
    isExact && 'only'
  )

function scopeText(scope: number | undefined): string | undefined {
  if (scope === undefined || scope === 0) return undefined
  return `scope ${scope === LINK_SCOPE ? 'link' : scope === HOST_SCOPE ? 'host' : scope}`
}

function linkText(link: Link): string {
  return words(
    'link',
    link.name,
    link.form && `type ${formText(link.form)}`,
    link.master !== undefined && (link.master === '' ? 'nomaster' : `master ${link.master}`),
    link.mtu !== undefined && `mtu ${link.mtu}`,
    link.mac && `address ${link.mac}`,
    link.hairpin !== undefined && `hairpin ${link.hairpin ? 'on' : 'off'}`,
    link.isolated && 'isolated on',
    link.vlanFiltering !== undefined && `vlan_filtering ${link.vlanFiltering ? 1 : 0}`,
    link.promiscuous && 'promisc on',
    link.allMulticast && 'allmulticast on',
    link.queueLength !== undefined && `txqueuelen ${link.queueLength}`,
    link.up !== undefined && (link.up ? 'up' : 'down')
  )
}

function formText(form: NonNullable<Link['form']>): string {
  switch (form.type) {
    case 'vxlan': {
      const flags = `${form.learning ? 'learning' : 'nolearning'}${form.gbp ? ' gbp' : ''}`
      return `vxlan id ${form.vni} local ${formatIp(form.local)} dev ${form.parent} dstport ${form.port} ${flags}`
    }
    case 'veth':
      return form.peer ? words('veth peer', form.peer.name, form.peer.sandbox && `netns ${form.peer.sandbox}`) : 'veth'
    case 'macvlan':
      return words('macvlan mode', form.mode, form.madeOn && `link ${form.madeOn}`)
    case 'ipip':
      return words(`ipip local ${formatIp(form.local)} remote any`, form.fou && fouText(form.fou))
    case 'vlan':
      return `vlan id ${form.id} link ${form.parent}`
    case 'bridge':
    case 'ifb':
    case 'tun':
      return form.type
    case 'other':
      return form.of || 'physical'
  }
}

const fouText = ({ sourcePort, destinationPort, checksum }: FouEncapsulation): string =>
  `encap fou encap-sport ${sourcePort} encap-dport ${destinationPort} ${checksum ? 'encap-csum' : 'noencap-csum'}`

function disciplineText(discipline: Discipline): string {
  switch (discipline.type) {
    case 'tbf':
      return `tbf rate ${discipline.rate * 8}bit burst ${discipline.burst}b limit ${discipline.limit}b`
    case 'htb':
      return discipline.division === undefined ? 'htb' : divisionText(discipline.division)
    case 'redirect':
      return `redirect dev ${discipline.to}`
    case 'other':
      return discipline.of
  }
}

const destinationText = ({ destination }: Route): string =>
  destination.length === 0 ? 'default' : formatPrefix(network(destination))

/**
 * The command that removes this route and no other of the same destination. With a nexthop object the kernel accepts
 * only the object's number (fib_nh_match).
 */
export function deletionOf(route: Route): string {
  const { destination, type, device, gateway, nextHops = [], nextHopId, tos, table, protocol, metric } = route
  const hops = nextHops.map((hop) =>
    words('nexthop', hop.gateway && viaText(destination.ip, hop.gateway), hop.device && `dev ${hop.device}`)
  )
  const path =
    nextHopId === undefined
      ? [gateway && viaText(destination.ip, gateway), device && `dev ${device}`, ...hops]
      : [`nhid ${nextHopId}`]
  return words(
    destination.ip.family === 6 ? 'ip -6 route del' : 'ip route del',
    type !== 'unicast' && type !== 'other' && type,
    destinationText(route),
    // The hops come last: what follows `nexthop` belongs to it.
    tos !== undefined && `tos 0x${tos.toString(16)}`,
    table !== MAIN_TABLE && `table ${table}`,
    protocol !== 0 && `proto ${protocol}`,
    metric !== 0 && `metric ${metric}`,
    ...path
  )
}

/** `inet6` where a route has a gateway of the other family. */
const viaText = ({ family }: Ip, gateway: Ip): string =>
  `via ${gateway.family === family ? '' : `inet${gateway.family === 6 ? '6' : ''} `}${formatIp(gateway)}`

function routeText(route: Route): string {
  return words(
    'route',
    route.type !== 'unicast' && route.type,
    destinationText(route),
    route.gateway && `via ${formatIp(route.gateway)}`,
    route.device && `dev ${route.device}`,
    ...(route.nextHops ?? []).map(({ gateway, device }) =>
      words('nexthop', gateway && `via ${formatIp(gateway)}`, device && `dev ${device}`)
    ),
    route.tos !== undefined && `tos 0x${route.tos.toString(16)}`,
    route.table !== MAIN_TABLE && `table ${route.table}`,
    route.protocol !== 0 && `proto ${route.protocol}`,
    scopeText(route.scope),
    route.source && `src ${formatIp(route.source)}`,
    route.metric !== (route.destination.ip.family === 4 ? 0 : 1024) && `metric ${route.metric}`,
    route.mtu !== undefined && `mtu ${route.mtu}`,
    route.onlink && 'onlink'
  )
}

/**
 * A change as a line of a diff: `+` is missing in the kernel, `-` must be removed, `~` differs (with the fields that
 * differ).
 */
export function changeText(change: Change): string {
  const why = change.object.because === undefined ? '' : `   # ${change.object.because}`
  if (change.do === 'remove') return `- ${textOf(change.object)}`
  if (change.instead === undefined) return `+ ${textOf(change.object)}${why}`
  return `~ ${textOf(change.object)}   (${differingFields(change.object, change.instead).join(', ')}; now: ${textOf(change.instead)})${why}`
}

function divisionText({ rate, burst, limit, side, limits, subnets }: Division): string {
  const whom = `${side} ${limits === 'these' ? '' : 'not '}${subnets.map(formatPrefix).join(',')}`
  return `htb rate ${rate * 8}bit burst ${burst}b limit ${limit}b for ${whom}`
}
