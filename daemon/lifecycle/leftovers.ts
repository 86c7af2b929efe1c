// What stays on a node that Weft was removed from, each with the command that removes it: a bridge that others made or
// use, forwarding, reserved addresses, the lease.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatPrefix, type PerFamily, type Prefix, parseIp, perFamily } from '../../ipam/address.ts'
import { ifThere } from '../../ipam/files.ts'
import { DEFAULT_BRIDGE, DEFAULT_DATA_DIR } from '../../plugins/attachment.ts'
import { bridgeMac } from '../attachment/identity.ts'
import type { KernelObject, Link, State } from '../state/object.ts'

export type Removed = {
  /** As before the bridges were removed. */
  readonly observed: State
  readonly bridges: readonly KernelObject[]
  readonly identity: string
  readonly subnet: PerFamily<Prefix>
}

/** Where to look; another root in tests. */
export type Places = { readonly sysctls: string; readonly reservations: string }
const PLACES: Places = { sysctls: '/proc/sys', reservations: DEFAULT_DATA_DIR }

/** Set by weftd, and never back to 0: other programs may have come to need them since. */
const FORWARDING = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'] as const

/** One clause each. Never throws: what can't be read is not listed. */
export function leftovers({ observed, bridges, identity, subnet }: Removed, places = PLACES): readonly string[] {
  const links = [...observed.values()].filter((object) => object.kind === 'link')
  const isOurs = ({ name, mac }: Link) => mac === bridgeMac(identity, name)
  const staying = links.filter(
    (link) => link.form?.type === 'bridge' && !bridges.includes(link) && (link.name === DEFAULT_BRIDGE || isOurs(link))
  )
  const leases = perFamily(subnet).map(([, prefix]) => formatPrefix(prefix))
  const reserved = quietly(() => reservedIn(places.reservations)) ?? 0
  return [
    ...staying.map((link) => bridgeText(link, links.filter(({ master }) => master === link.name).length, isOurs(link))),
    ...FORWARDING.filter((name) => quietly(() => sysctl(places.sysctls, name)) === '1').map(
      (name) => `${name} = 1, which other programs may need (sysctl ${name}=0)`
    ),
    ...(reserved > 0 ? [`${reserved} reserved pod addresses in ${places.reservations}`] : []),
    ...(leases.length > 0 ? [`the lease of ${leases.join(' and ')} in the store, until it expires`] : [])
  ]
}

function bridgeText({ name }: Link, ports: number, isOurs: boolean): string {
  const whose = isOurs ? '' : ', which weftd did not make'
  const used = ports === 0 ? '' : `, which ${ports} interface${ports === 1 ? ' uses' : 's use'}`
  return `the bridge ${name}${whose}${used} (ip link delete ${name})`
}

const sysctl = (root: string, name: string): string =>
  readFileSync(join(root, name.replaceAll('.', '/')), 'utf8').trim()

/** Files that are named after an address, in the folder of each network. */
function reservedIn(folder: string): number {
  const names = (path: string) => ifThere(path, (at) => readdirSync(at, { withFileTypes: true })) ?? []
  return names(folder)
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => names(join(folder, name)))
    .filter((entry) => entry.isFile() && parseIp(entry.name) !== undefined).length
}

function quietly<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}
