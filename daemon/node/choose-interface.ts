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
import type { Address, Link, Route, State } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'

export type InterfaceOptions = {
  /** `--iface`: names or addresses, in order of preference. */
  readonly ifaces: readonly string[]
  /** `--iface-regex`: matched against names and addresses, after `ifaces`. */
  readonly ifaceRegexes: readonly string[]
  /** `--iface-can-reach` as the kernel resolved it; without `device` there is no route to it. */
  readonly reaching?: { readonly target: Ip; readonly device?: string }
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
  for (const [name, why] of candidates(host, links, options, reasons)) {
    const fit = fitness(host, links.get(name), name, options)
    if (typeof fit === 'string') reasons.push(`${name} (${why}): ${fit}`)
    else return { ...fit, reasons: [...reasons, `${name} (${why}): chosen`] }
  }
  throw new WeftError(
    'NO_INTERFACE',
    `no interface leads to the other nodes: ${reasons.join('; ')}`,
    'select one with --iface, --iface-regex or --iface-can-reach; it must have an address of every family of the network'
  )
}

const linksOf = (host: State) =>
  new Map(
    [...host.values()].filter((object): object is Link => object.kind === 'link').map((link) => [link.name, link])
  )

const addressesOn = (host: State, device: string): readonly Prefix[] =>
  [...host.values()]
    .filter((object): object is Address => object.kind === 'address' && object.device === device)
    .map((address) => address.prefix)

function* candidates(
  host: State,
  links: ReadonlyMap<string, Link>,
  options: InterfaceOptions,
  reasons: string[]
): Generator<readonly [string, string]> {
  const { flagName = (flag: string) => `--${flag}` } = options
  const [iface, regex, canReach] = [flagName('iface'), flagName('iface-regex'), flagName('iface-can-reach')]
  const isConfigured = options.ifaces.length > 0 || options.ifaceRegexes.length > 0 || options.reaching !== undefined
  for (const text of options.ifaces) {
    const ip = parseIp(text)
    const name = ip === undefined ? text : deviceWith(host, ip)
    if (name === undefined) reasons.push(`${text} (${iface}): no interface has this address`)
    else yield [name, `${iface} ${text}`]
  }
  for (const source of options.ifaceRegexes) {
    const names = [...links.keys()].filter((name) => matches(source, name, addressesOn(host, name), regex))
    if (names.length === 0)
      reasons.push(`/${source}/ (${regex}): matches no name and no address of ${[...links.keys()].join(', ')}`)
    for (const name of names) yield [name, `${regex} ${source}`]
  }
  if (options.reaching !== undefined) {
    const target = formatIp(options.reaching.target)
    if (options.reaching.device === undefined) reasons.push(`${target} (${canReach}): this host has no route to it`)
    else yield [options.reaching.device, `${canReach} ${target}`]
  }
  if (!isConfigured) yield* defaultCandidates(host, links, options.recognises, reasons)
}

function* defaultCandidates(
  host: State,
  links: ReadonlyMap<string, Link>,
  recognises: Recognises,
  reasons: string[]
): Generator<readonly [string, string]> {
  const defaults = defaultRoutes(host)
  for (const { device, nextHops = [] } of defaults) {
    if (device !== undefined) yield [device, 'default route']
    for (const hop of nextHops) if (hop.device !== undefined) yield [hop.device, 'next hop of the default route']
  }
  if (defaults.some(({ device, nextHops }) => device !== undefined || nextHops !== undefined)) return
  reasons.push(defaults.length > 0 ? 'the default route names no interface' : 'no default route')
  const possible = [...links.values()].filter(
    (link) => !isVirtual(link, recognises) && addressesOn(host, link.name).some((prefix) => isGlobalUnicast(prefix.ip))
  )
  if (possible.length === 1) yield [possible[0]?.name ?? '', 'the only interface with a global address']
  else for (const { name } of possible) reasons.push(`${name}: one of several without a default route`)
}

/** Links of containers, backends and bridges: never chosen unless configured. */
const isVirtual = (link: Link, recognises: Recognises): boolean =>
  link.name === 'lo' ||
  (link.master ?? '') !== '' ||
  link.form?.type === 'bridge' ||
  recognises(link) !== undefined ||
  /^(veth|docker|cni|br-)/.test(link.name)

/** Default routes of the main table, smallest metric first, IPv4 before IPv6. */
export function defaultRoutes(host: State): readonly Route[] {
  return [...host.values()]
    .filter(
      (object): object is Route =>
        object.kind === 'route' && object.table === 254 && object.destination.length === 0 && object.type === 'unicast'
    )
    .sort((a, b) => a.destination.ip.family - b.destination.ip.family || a.metric - b.metric)
}

const deviceWith = (host: State, ip: Ip): string | undefined =>
  [...host.values()].find((object): object is Address => object.kind === 'address' && sameIp(object.prefix.ip, ip))
    ?.device

/**
 * Compiled here rather than by the flag parser, so that an invalid expression is an error like any other; --iface-regex
 * is the administrator's own.
 */
function matches(source: string, name: string, addresses: readonly Prefix[], as: string): boolean {
  let regex: RegExp
  try {
    regex = new RegExp(source)
  } catch (cause) {
    throw new WeftError('NO_INTERFACE', `${as} ${source} is not a regular expression`, 'correct the expression', {
      cause
    })
  }
  return regex.test(name) || addresses.some((prefix) => regex.test(formatIp(prefix.ip)))
}

function fitness(
  host: State,
  link: Link | undefined,
  name: string,
  options: InterfaceOptions
): Omit<InterfaceChoice, 'reasons'> | string {
  if (link === undefined) return 'no such interface'
  if (link.name === 'lo') return 'the loopback interface reaches no other node'
  if (link.up === false) return 'is down'
  const addresses = addressesOn(host, name)
  const configured = options.ifaces.map((text) => parseIp(text)).filter((ip) => ip !== undefined)
  const localIp: { [F in Family]?: Ip } = {}
  for (const family of options.families) {
    const own = addresses.map((prefix) => prefix.ip).filter((ip) => ip.family === family)
    const local =
      own.find((ip) => configured.some((other) => sameIp(ip, other))) ??
      own.find(isGlobalUnicast) ??
      own.find((ip) => family === 4 && isLinkLocal(ip))
    if (local === undefined) return `has no global IPv${family} address`
    localIp[family] = local
  }
  return {
    device: name,
    mtu: link.mtu ?? 1500,
    addresses,
    localIp,
    publicIp: { ...localIp, ...onlyFamilies(options.publicIp, options.families) }
  }
}

const onlyFamilies = (ips: PerFamily<Ip>, families: readonly Family[]): PerFamily<Ip> =>
  Object.fromEntries(families.flatMap((family) => (ips[family] === undefined ? [] : [[family, ips[family]]])))
