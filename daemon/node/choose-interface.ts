// Which interface faces the other nodes, and the facts that follow from it; every candidate with the reason why it won or lost.
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
import { type Given, writtenAs } from '../cli/flag-parser.ts'
import type { Address, Link, Route, State } from '../state/object.ts'

export type InterfaceOptions = {
  /** `--iface`: names or addresses, in order of preference. */
  readonly ifaces: readonly string[]
  /** `--iface-regex`: tried on names and addresses after `ifaces`. */
  readonly ifaceRegexes: readonly string[]
  /** `--iface-can-reach` resolved by the kernel: the device and source by which that address is reached. */
  readonly reaching?: { readonly target: Ip; readonly device?: string }
  /** `--public-ip`, `--public-ipv6`. */
  readonly publicIp: PerFamily<Ip>
  /** By which flag or variable each wish was given. */
  readonly given?: Given
  /** Families of the network configuration. */
  readonly families: readonly Family[]
}

export type InterfaceChoice = {
  readonly device: string
  readonly mtu: number
  readonly addresses: readonly Prefix[]
  readonly localIp: PerFamily<Ip>
  readonly publicIp: PerFamily<Ip>
  /** One line per candidate that was looked at, the winner last. */
  readonly reasons: readonly string[]
}

/**
 * Chooses in flannel's order: the listed interfaces, the regular expressions, what reaches `--iface-can-reach`, else the interface of the default
 * route with the smallest metric, else the only interface that could do. Errors: NO_INTERFACE with all candidates and why each lost.
 */
export function chooseInterface(host: State, wish: InterfaceOptions): InterfaceChoice {
  const links = linksOf(host)
  const reasons: string[] = []
  for (const [name, why] of candidates(host, links, wish, reasons)) {
    const fit = fitness(host, links.get(name), name, wish)
    if (typeof fit === 'string') reasons.push(`${name} (${why}): ${fit}`)
    else return { ...fit, reasons: [...reasons, `${name} (${why}): chosen`] }
  }
  throw new WeftError(
    'NO_INTERFACE',
    `none of the interfaces can face the other nodes: ${reasons.join('; ') || 'this host has none but lo'}`,
    'name one with --iface, --iface-regex or --iface-can-reach, and give it an address of every family of the network'
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
  wish: InterfaceOptions,
  reasons: string[]
): Generator<readonly [string, string]> {
  const asked = wish.ifaces.length > 0 || wish.ifaceRegexes.length > 0 || wish.reaching !== undefined
  const as = (flag: string) => writtenAs(wish.given, flag)
  for (const text of wish.ifaces) {
    const ip = parseIp(text)
    const name = ip === undefined ? text : holderOf(host, ip)
    if (name === undefined) reasons.push(`${text} (${as('iface')}): no interface has this address`)
    else yield [name, `${as('iface')} ${text}`]
  }
  for (const source of wish.ifaceRegexes) {
    const names = [...links.keys()].filter((name) => matches(source, name, addressesOn(host, name), as('iface-regex')))
    if (names.length === 0)
      reasons.push(
        `/${source}/ (${as('iface-regex')}): matches no name and no address of ${[...links.keys()].join(', ')}`
      )
    for (const name of names) yield [name, `${as('iface-regex')} ${source}`]
  }
  if (wish.reaching !== undefined) {
    const target = formatIp(wish.reaching.target)
    if (wish.reaching.device === undefined)
      reasons.push(`${target} (${as('iface-can-reach')}): this host has no route to it`)
    else yield [wish.reaching.device, `${as('iface-can-reach')} ${target}`]
  }
  if (!asked) yield* unasked(host, links, reasons)
}

function* unasked(
  host: State,
  links: ReadonlyMap<string, Link>,
  reasons: string[]
): Generator<readonly [string, string]> {
  const defaults = defaultRoutes(host)
  for (const { device } of defaults) if (device !== undefined) yield [device, 'default route']
  if (defaults.length > 0) return
  reasons.push('no default route')
  const possible = [...links.values()].filter(
    (link) => !isVirtual(link) && addressesOn(host, link.name).some((prefix) => isGlobalUnicast(prefix.ip))
  )
  if (possible.length === 1) yield [possible[0]?.name ?? '', 'the only interface with a global address']
  else for (const { name } of possible) reasons.push(`${name}: one of several without a default route`)
}

/** Links that belong to containers, tunnels and bridges: never what faces the other nodes unless it is asked for. */
const isVirtual = (link: Link): boolean =>
  link.name === 'lo' ||
  (link.master ?? '') !== '' ||
  link.form?.type === 'bridge' ||
  link.form?.type === 'vxlan' ||
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

const holderOf = (host: State, ip: Ip): string | undefined =>
  [...host.values()].find((object): object is Address => object.kind === 'address' && sameIp(object.prefix.ip, ip))
    ?.device

/** Compiled here and not at the options' border, so that a bad expression is an error like any other; `iface-regex` is the administrator's own. */
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
  wish: InterfaceOptions
): Omit<InterfaceChoice, 'reasons'> | string {
  if (link === undefined) return 'no such interface'
  if (link.name === 'lo') return 'the loopback interface reaches no other node'
  if (link.up === false) return 'is down'
  const addresses = addressesOn(host, name)
  const asked = wish.ifaces.map((text) => parseIp(text)).filter((ip) => ip !== undefined)
  const localIp: { [F in Family]?: Ip } = {}
  for (const family of wish.families) {
    const own = addresses.map((prefix) => prefix.ip).filter((ip) => ip.family === family)
    const local =
      own.find((ip) => asked.some((other) => sameIp(ip, other))) ??
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
    publicIp: { ...localIp, ...onlyFamilies(wish.publicIp, wish.families) }
  }
}

const onlyFamilies = (ips: PerFamily<Ip>, families: readonly Family[]): PerFamily<Ip> =>
  Object.fromEntries(families.flatMap((family) => (ips[family] === undefined ? [] : [[family, ips[family]]])))
