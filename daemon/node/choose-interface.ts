// Chooses the interface to the other nodes, with the reason why each candidate was chosen or not.
import {
  type Family,
  formatIp,
  type Ip,
  isGlobalUnicast,
  isLinkLocal,
  type PerFamily,
  type Prefix,
  parseIp,
  sameIp
} from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { CompileGo, GoPattern } from '../base/go-regexp.ts'
import { type Address, addressesIn, type Link, type Route, type State } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import { devicesOf, isDefaultRoute } from '../state/route.ts'
import { chooseAddress, isLasting } from './choose-address.ts'

export type InterfaceOptions = {
  /** `--iface`: names or addresses, in order of preference. */
  readonly ifaces: readonly string[]
  /** `--iface-regex`: matched against names and addresses, after `ifaces`. */
  readonly ifaceRegexes: readonly string[]
  /** Compiles one of them; without it in JavaScript's syntax. Errors: those of the pattern. */
  readonly compile?: CompileGo
  /** `--iface-can-reach` as the kernel resolved it; without `device` there is no route to it. */
  readonly reaching?: { readonly target: Ip; readonly device?: string; readonly source?: Ip }
  /**
   * Local addresses that this node has published, by this weftd or as its remembered lease says; the first one first.
   */
  readonly published?: PerFamily<readonly Ip[]>
  /** Pods are served already: an interface that has lost its address is waited for rather than given a passing one. */
  readonly isServing?: boolean
  /** `--public-ip`, `--public-ipv6`. */
  readonly publicIp: PerFamily<Ip>
  /** How the user set a flag, for messages: `--iface` or the variable. The flag itself by default. */
  readonly flagName?: (flag: string) => string
  /** Families of the network configuration. */
  readonly families: readonly Family[]
  /** Devices of a backend never lead to the other nodes. */
  readonly recognises: Recognises
}

export type InterfaceChoice = {
  readonly device: string
  readonly mtu: number
  readonly addresses: readonly Prefix[]
  readonly localIp: PerFamily<Ip>
  readonly publicIp: PerFamily<Ip>
  /** One line per candidate, the chosen one last. */
  readonly reasons: readonly string[]
}

/**
 * Chooses in flannel's order: the listed interfaces, the regular expressions, the interface that reaches
 * `--iface-can-reach`, else that of the default route with the smallest metric, else the only suitable one. Errors:
 * NO_INTERFACE with each candidate and the reason against it.
 */
export function chooseInterface(host: State, options: InterfaceOptions): InterfaceChoice {
  const links = linksOf(host)
  const reasons: string[] = []
  for (const candidate of candidates(host, links, options, reasons)) {
    const { name, why } = candidate
    const fit = fitness(host, links, candidate, options)
    if (typeof fit === 'string') reasons.push(`${name} (${why}): ${fit}`)
    else return { ...fit, reasons: [...reasons, `${name} (${why}): chosen`] }
  }
  throw new WeftError(
    'NO_INTERFACE',
    `no interface leads to the other nodes: ${[...reasons, interfacesOf(host, links)].join('; ')}`,
    'select one with --iface, --iface-regex or --iface-can-reach; it must have an address of every family of the network'
  )
}

/** An interface, and which of its addresses whatever selected it names. */
type Candidate = {
  readonly name: string
  readonly why: string
  readonly isAsked?: (ip: Ip) => boolean
  readonly source?: Ip | undefined
}

/** Interfaces that a message names. */
const MOST = 20

/** What there is to select from, with addresses. */
function interfacesOf(host: State, links: ReadonlyMap<string, Link>): string {
  const texts = [...links.keys()].flatMap((name) => {
    const addresses = addressesIn(host, name).flatMap(({ prefix: { ip } }) => (isLinkLocal(ip) ? [] : [formatIp(ip)]))
    return name === LOOPBACK ? [] : [`${name} (${addresses.join(', ') || 'no address'})`]
  })
  if (texts.length === 0) return 'this host has no interface but lo'
  const more = texts.length > MOST ? ` and ${texts.length - MOST} more` : ''
  return `this host has ${texts.slice(0, MOST).join(', ')}${more}`
}

const linksOf = (host: State) =>
  new Map(
    [...host.values()].filter((object): object is Link => object.kind === 'link').map((link) => [link.name, link])
  )

function* candidates(
  host: State,
  links: ReadonlyMap<string, Link>,
  options: InterfaceOptions,
  reasons: string[]
): Generator<Candidate> {
  const { flagName = (flag: string) => `--${flag}` } = options
  const [iface, canReach] = [flagName('iface'), flagName('iface-can-reach')]
  const isConfigured = options.ifaces.length > 0 || options.ifaceRegexes.length > 0 || options.reaching !== undefined
  const asked = options.ifaces.map((text) => parseIp(text)).filter((ip) => ip !== undefined)
  for (const text of options.ifaces) {
    const ip = parseIp(text)
    const name = ip === undefined ? nameOf(links, text) : deviceWith(host, ip)
    const isAsked = (own: Ip) => asked.some((each) => sameIp(each, own)) || (text === LOOPBACK && isGlobalUnicast(own))
    if (name === undefined) reasons.push(`${text} (${iface}): no interface has this address`)
    else yield { name, why: `${iface} ${text}`, isAsked }
  }
  yield* matchingCandidates(host, links, options, reasons)
  if (options.reaching !== undefined) {
    const { target, device, source } = options.reaching
    const text = formatIp(target)
    if (device === undefined) reasons.push(`${text} (${canReach}): this host has no route to it`)
    else yield { name: linkWith(host, device, source), why: `${canReach} ${text}`, source }
  }
  if (!isConfigured) yield* defaultCandidates(host, links, options.recognises, reasons)
}

/** What `--iface-regex` matches; `lo` last, since expressions that match everything match its addresses too. */
function* matchingCandidates(
  host: State,
  links: ReadonlyMap<string, Link>,
  { ifaceRegexes, compile, flagName = (flag: string) => `--${flag}` }: InterfaceOptions,
  reasons: string[]
): Generator<Candidate> {
  const flag = flagName('iface-regex')
  const all = [...links.keys()].sort((a, b) => Number(a === LOOPBACK) - Number(b === LOOPBACK))
  const regexes = ifaceRegexes.map((source) => ({ source, regex: compiled(source, flag, compile) }))
  const isAsked = (ip: Ip) => regexes.some(({ regex }) => regex.test(formatIp(ip)))
  for (const { source, regex } of regexes) {
    const names = all.filter(
      (name) =>
        namesOf(links, name).some((each) => regex.test(each)) ||
        addressesIn(host, name).some(({ prefix }) => regex.test(formatIp(prefix.ip)))
    )
    if (names.length === 0)
      reasons.push(`/${source}/ (${flag}): matches no name and no address of ${[...links.keys()].join(', ')}`)
    for (const name of names) yield { name, why: `${flag} ${source}`, isAsked }
  }
}

function* defaultCandidates(
  host: State,
  links: ReadonlyMap<string, Link>,
  recognises: Recognises,
  reasons: string[]
): Generator<Candidate> {
  const defaults = defaultRoutes(host)
  for (const route of defaults) {
    const { source } = route
    const isOfLoopback = linkWith(host, '', source) === LOOPBACK
    if (isOfLoopback) yield { name: LOOPBACK, why: 'default route', source }
    const why = route.nextHops === undefined ? 'default route' : 'next hop of the default route'
    if (!isOfLoopback) for (const name of devicesOf(route)) yield { name, why, source }
  }
  if (defaults.some(({ device, nextHops }) => device !== undefined || nextHops !== undefined)) return
  reasons.push(defaults.length > 0 ? 'the default route names no interface' : 'no default route')
  const possible = [...links.values()].filter(
    (link) =>
      !isVirtual(link, recognises) && addressesIn(host, link.name).some(({ prefix }) => isGlobalUnicast(prefix.ip))
  )
  if (possible.length === 1) yield { name: possible[0]?.name ?? '', why: 'the only interface with a global address' }
  else for (const { name } of possible) reasons.push(`${name}: one of several without a default route`)
}

/**
 * The interface of a route; `lo` where the route's source is an address of `lo`, as on hosts that announce it by BGP
 * over several links.
 */
function linkWith<D extends string | undefined>(host: State, device: D, source: Ip | undefined): D | typeof LOOPBACK {
  return source !== undefined && isGlobalUnicast(source) && deviceWith(host, source) === LOOPBACK ? LOOPBACK : device
}

const LOOPBACK = 'lo'

/** Links of containers, backends and bridges: never chosen unless configured. */
const isVirtual = (link: Link, recognises: Recognises): boolean =>
  link.name === LOOPBACK ||
  (link.master ?? '') !== '' ||
  link.form?.type === 'bridge' ||
  recognises(link) !== undefined ||
  /^(veth|docker|cni|br-)/.test(link.name)

/** Default routes of the main table, smallest metric first, IPv4 before IPv6. */
export function defaultRoutes(host: State): readonly Route[] {
  return [...host.values()]
    .filter((object): object is Route => object.kind === 'route' && isDefaultRoute(object) && object.type === 'unicast')
    .sort((a, b) => a.destination.ip.family - b.destination.ip.family || a.metric - b.metric)
}

const deviceWith = (host: State, ip: Ip): string | undefined =>
  addressesIn(host).find(({ prefix }) => sameIp(prefix.ip, ip))?.device

/** By one of its names; the text itself where there is none. */
const nameOf = (links: ReadonlyMap<string, Link>, text: string): string =>
  links.has(text) ? text : ([...links.values()].find(({ altNames }) => altNames?.includes(text))?.name ?? text)

const namesOf = (links: ReadonlyMap<string, Link>, name: string): readonly string[] => [
  name,
  ...(links.get(name)?.altNames ?? [])
]

function compiled(source: string, as: string, compile: CompileGo = (text) => new RegExp(text)): GoPattern {
  try {
    return compile(source)
  } catch (cause) {
    throw new WeftError('NO_INTERFACE', `${as} ${source} is not a regular expression`, 'correct the expression', {
      cause
    })
  }
}

function fitness(
  host: State,
  links: ReadonlyMap<string, Link>,
  candidate: Candidate,
  options: InterfaceOptions
): Omit<InterfaceChoice, 'reasons'> | string {
  const { name, isAsked = () => false } = candidate
  const link = links.get(name)
  if (link === undefined) return 'no such interface'
  if (link.up === false) return 'is down'
  const addresses = addressesIn(host, name)
  const isLoopback = name === LOOPBACK
  const named = addresses.filter(({ prefix: { ip } }) => isAsked(ip) || sameIp(candidate.source, ip))
  if (isLoopback && !named.some(({ prefix }) => isGlobalUnicast(prefix.ip)))
    return 'the loopback interface reaches no other node'
  const localIp: { [F in Family]?: Ip } = {}
  for (const family of options.families) {
    const published = options.published?.[family] ?? []
    const source = sourceFor(host, candidate, family)
    const local = chooseAddress(addresses, family, { isAsked, source, published })
    if (local === undefined) return `has no global IPv${family} address`
    const lost = options.isServing ? lostFor(addresses, local, published, named) : undefined
    if (lost !== undefined) return `has lost its address ${formatIp(lost)}, and ${formatIp(local)} may not stay`
    localIp[family] = local
  }
  return {
    device: name,
    mtu: isLoopback ? uplinkMtu(host, links, options.recognises) : (link.mtu ?? 1500),
    // No neighbour is in a prefix of lo, whatever its length.
    addresses: isLoopback ? [] : addresses.map(({ prefix }) => prefix),
    localIp,
    publicIp: { ...localIp, ...onlyFamilies(options.publicIp, options.families) }
  }
}

/** The source of the route that selected the interface, else that of a default route by it. */
function sourceFor(host: State, { name, source }: Candidate, family: Family): Ip | undefined {
  if (source?.family === family) return source
  return defaultRoutes(host).find((route) => route.source?.family === family && devicesOf(route).includes(name))?.source
}

/**
 * The address that this node publishes, where the interface has lost it and `local` would not last: then it usually
 * comes back, as after a DHCP renewal.
 */
function lostFor(
  addresses: readonly Address[],
  local: Ip,
  published: readonly Ip[],
  named: readonly Address[]
): Ip | undefined {
  const isLocal = ({ prefix }: Address) => sameIp(prefix.ip, local)
  if (named.some(isLocal) || published.some((ip) => sameIp(ip, local))) return undefined
  return addresses.some((address) => isLocal(address) && isLasting(address)) ? undefined : published.at(-1)
}

/** The smallest MTU of the links by which packets from an address of lo may leave. */
function uplinkMtu(host: State, links: ReadonlyMap<string, Link>, recognises: Recognises): number {
  const byRoute = defaultRoutes(host).flatMap((route) => devicesOf(route).flatMap((name) => links.get(name) ?? []))
  const uplinks = byRoute.length > 0 ? byRoute : [...links.values()].filter((link) => !isVirtual(link, recognises))
  return Math.min(...uplinks.filter(({ up }) => up !== false).map(({ mtu }) => mtu ?? 1500), MOST_MTU)
}

/** Largest IPv4 packet, also the MTU of lo. */
const MOST_MTU = 65_535

const onlyFamilies = (ips: PerFamily<Ip>, families: readonly Family[]): PerFamily<Ip> =>
  Object.fromEntries(families.flatMap((family) => (ips[family] === undefined ? [] : [[family, ips[family]]])))
