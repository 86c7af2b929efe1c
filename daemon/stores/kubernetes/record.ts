// A Kubernetes node as a lease: flannel's annotations are parsed and formatted, and patches write ours.
import {
  contains,
  FAMILIES,
  type Family,
  formatIp,
  formatPrefix,
  type Ip,
  isUnspecified,
  network,
  type PerFamily,
  type Prefix,
  parseIp,
  parsePrefix,
  perFamily,
  samePrefix
} from '../../../ipam/address.ts'
import { WeftError } from '../../base/error.ts'
import { isTooDeep, type Json, type JsonObject, NESTED_JSON } from '../../config/json.ts'
import type { NetConf } from '../../config/net-conf.ts'
import type { Lease } from '../../lease/lease.ts'

/** The parts of a Node object that a lease needs: a few hundred bytes of about 20 KB. */
export type KubeNode = {
  readonly name: string
  readonly uid: string
  /** As the API server writes them; the first of each family counts. */
  readonly podCidrs: readonly string[]
  /** Annotations with our prefix, their names without it. */
  readonly annotations: { readonly [name: string]: string }
  /** The status of the condition NetworkUnavailable; `undefined` when the node has no such condition. */
  readonly networkUnavailable: string | undefined
  /** Whether the node condition Ready is True. */
  readonly ready: boolean
  /** When the object was created, in milliseconds since 1970. */
  readonly created?: number
}

const MANAGED = 'kube-subnet-manager'
const TYPE = 'backend-type'
/** flannel's names, by family. Administrators write `overwrite` and `own`; the daemon writes the others. */
const NAMES = {
  4: {
    publicIp: 'public-ip',
    data: 'backend-data',
    overwrite: 'public-ip-overwrite',
    own: 'node-public-ip'
  },
  6: {
    publicIp: 'public-ipv6',
    data: 'backend-v6-data',
    overwrite: 'public-ipv6-overwrite',
    own: 'node-public-ipv6'
  }
} as const satisfies Record<Family, object>

/**
 * flannel's rule: without a slash one is added, and after the slash a `-` unless the prefix ends in one. `weft.io/a` →
 * `weft.io/a-`.
 */
export function annotationPrefix(option: string): string {
  if (!option.includes('/')) return `${option}/`
  return /[/-]$/.test(option) ? option : `${option}-`
}

/**
 * The node's pod subnets: the first podCIDR of each family. Errors: LEASE_MALFORMED for a string that is not a CIDR.
 */
export function podSubnets(node: KubeNode): PerFamily<Prefix> {
  const subnets: { [F in Family]?: Prefix } = {}
  for (const text of node.podCidrs) {
    const prefix = parsePrefix(text)
    if (prefix === undefined) throw malformed(node, 'spec.podCIDRs', text, 'CIDRs such as 10.244.3.0/24')
    subnets[prefix.ip.family] ??= network(prefix)
  }
  return subnets
}

/**
 * The lease that a node publishes; `undefined` when it publishes none: no `kube-subnet-manager: "true"`, or no podCIDR
 * yet. A family without a public address is left out. Errors: LEASE_MALFORMED with the node, the annotation and its
 * value.
 */
export function leaseOfNode(node: KubeNode, prefix: string): Lease | undefined {
  if (node.annotations[MANAGED] !== 'true') return undefined
  const subnets = podSubnets(node)
  if (perFamily(subnets).length === 0) return undefined
  const subnet: { [F in Family]?: Prefix } = {}
  const publicIp: { [F in Family]?: Ip } = {}
  const backendData: { [F in Family]?: Json } = {}
  for (const [family, podSubnet] of perFamily(subnets)) {
    const ip = readIp(node, prefix, NAMES[family].publicIp, family)
    if (ip === undefined) continue
    subnet[family] = podSubnet
    publicIp[family] = ip
    const data = readData(node, prefix, NAMES[family].data)
    if (data !== null) backendData[family] = data
  }
  const names = perFamily(subnets).map(([family]) => NAMES[family].publicIp)
  if (perFamily(publicIp).length === 0) {
    const [name = ''] = names
    throw malformed(node, prefix + name, node.annotations[name], 'the address that other nodes send to')
  }
  // flanneld's default backend writes an empty one.
  const backendType = node.annotations[TYPE]
  if (!backendType) throw malformed(node, prefix + TYPE, backendType, 'a backend such as vxlan')
  const { name, created } = node
  return { subnet, publicIp, backendType, backendData, node: name, ...(created !== undefined && { created }) }
}

function readIp(node: KubeNode, prefix: string, name: string, family: Family): Ip | undefined {
  const text = node.annotations[name]
  if (text === undefined || text === '') return undefined
  const ip = parseIp(text)
  if (ip?.family !== family) throw malformed(node, prefix + name, text, `an IPv${family} address`)
  // flannel writes 0.0.0.0 for a node that has IPv6 only.
  return isUnspecified(ip) ? undefined : ip
}

/** Absent and `null` are the same: the backend publishes nothing. */
function readData(node: KubeNode, prefix: string, name: string): Json {
  const text = node.annotations[name]
  if (text === undefined || text === '') return null
  if (isTooDeep(text)) throw malformed(node, prefix + name, text, NESTED_JSON)
  try {
    return JSON.parse(text) as Json
  } catch (cause) {
    throw malformed(node, prefix + name, text, 'JSON', cause)
  }
}

function malformed(node: KubeNode, what: string, value: string | undefined, rule: string, cause?: unknown): WeftError {
  const shown = value === undefined ? 'is missing' : `is ${JSON.stringify(value.slice(0, 200))}`
  return new WeftError(
    'LEASE_MALFORMED',
    `node ${node.name}: ${what} ${shown}; it must be ${rule}`,
    `correct ${what} of node ${node.name}, or remove it so that the daemon there writes it again`,
    cause === undefined ? undefined : { cause }
  )
}

export type PublicAddresses = {
  readonly publicIp: PerFamily<Ip>
  /** Annotations of the administrator that can't be used, each with a sentence about it. */
  readonly faults: readonly { readonly annotation: string; readonly text: string }[]
}

/**
 * The addresses that this node publishes: public-ip-overwrite takes precedence over node-public-ip, and that over the
 * detected or configured address.
 */
export function publicAddresses(node: KubeNode, prefix: string, detected: PerFamily<Ip>): PublicAddresses {
  const publicIp: { [F in Family]?: Ip } = {}
  const faults: { annotation: string; text: string }[] = []
  for (const [family, ip] of perFamily(detected)) {
    publicIp[family] = ip
    for (const name of [NAMES[family].own, NAMES[family].overwrite]) {
      const text = node.annotations[name]
      if (text === undefined || text === '') continue
      const given = parseIp(text)
      if (given?.family === family && !isUnspecified(given)) publicIp[family] = given
      else
        faults.push({
          annotation: `${prefix}${name}`,
          text: `${prefix}${name} of node ${node.name} is ${JSON.stringify(text)}, but must be an IPv${family} address`
        })
    }
  }
  return { publicIp, faults }
}

export type Placement =
  | { readonly kind: 'fits'; readonly subnet: PerFamily<Prefix> }
  | { readonly kind: 'missing'; readonly detail: string }
  | { readonly kind: 'outside'; readonly detail: string }

/**
 * Whether the node's podCIDRs serve the configuration: one in each of its families, inside Network. Errors:
 * LEASE_MALFORMED.
 */
export function placementOf(node: KubeNode, conf: NetConf): Placement {
  const all = podSubnets(node)
  const subnet: { [F in Family]?: Prefix } = {}
  for (const family of FAMILIES) {
    const range = conf.families[family]
    if (range === undefined) continue
    const prefix = all[family]
    if (prefix === undefined) {
      const only = perFamily(all).map(([, one]) => formatPrefix(one))
      const has = only.length === 0 ? 'has no podCIDR' : `has no IPv${family} podCIDR, only ${only.join(' and ')}`
      return { kind: 'missing', detail: `node ${node.name} ${has}` }
    }
    if (!contains(range.network, prefix)) {
      const detail = `podCIDR ${formatPrefix(prefix)} of node ${node.name} lies outside Network ${formatPrefix(range.network)}`
      return { kind: 'outside', detail }
    }
    subnet[family] = prefix
  }
  return { kind: 'fits', subnet }
}

/**
 * Whether the nodes' podCIDRs use up every subnet of a network: a sentence, or `undefined`. The controller manager
 * divides one range into subnets of one length, so the longest length in use determines how many there are.
 */
export function usedUp(podCidrs: readonly Prefix[], range: Prefix): string | undefined {
  const inside = podCidrs.filter((prefix) => contains(range, prefix))
  const length = Math.max(...inside.map((prefix) => prefix.length))
  if (inside.length === 0 || length - range.length > 30) return undefined
  const taken = new Set(inside.map((prefix) => formatPrefix(prefix))).size
  const room = 2 ** (length - range.length)
  return taken < room ? undefined : `nodes hold all ${room} subnets of length ${length} in ${formatPrefix(range)}`
}

/** The annotations that publish a lease, without their prefix; `null` for one to be removed. */
export function annotationsOf(lease: Lease): { readonly [name: string]: string | null } {
  const written: { [name: string]: string | null } = { [MANAGED]: 'true', [TYPE]: lease.backendType }
  for (const family of FAMILIES) {
    const ip = lease.subnet[family] === undefined ? undefined : lease.publicIp[family]
    written[NAMES[family].publicIp] = ip === undefined ? null : formatIp(ip)
    written[NAMES[family].data] = ip === undefined ? null : JSON.stringify(lease.backendData[family] ?? null)
  }
  return written
}

/** The annotations that differ from those of the lease, as sentences for the log. */
export function annotationDifferences(node: KubeNode, lease: Lease): readonly string[] {
  return Object.entries(annotationsOf(lease)).flatMap(([name, value]) => {
    const there = node.annotations[name]
    if (there === (value ?? undefined)) return []
    const shown = there === undefined ? 'missing' : there
    return [`${name} is ${shown.slice(0, 200)} instead of ${value ?? 'missing'}`]
  })
}

/** A strategic merge patch of the annotations that differ from the lease; `undefined` when none does. */
export function annotationPatch(node: KubeNode, lease: Lease, prefix: string): JsonObject | undefined {
  const changes = Object.entries(annotationsOf(lease)).filter(
    ([name, value]) => node.annotations[name] !== (value ?? undefined)
  )
  if (changes.length === 0) return undefined
  return { metadata: { annotations: Object.fromEntries(changes.map(([name, value]) => [prefix + name, value])) } }
}

/** A strategic merge patch of the node's status; conditions are merged by type. `now` in RFC 3339, whole seconds. */
export const networkAvailable = (now: string): JsonObject => ({
  status: {
    conditions: [
      {
        type: 'NetworkUnavailable',
        status: 'False',
        reason: 'WeftIsUp',
        message: 'Weft is running on this node',
        lastHeartbeatTime: now,
        lastTransitionTime: now
      }
    ]
  }
})

/** Whether the node still has the subnets of the lease; podCIDRs that cannot be parsed count as different. */
export const hasSubnets = ({ podCidrs }: KubeNode, lease: Lease): boolean => {
  const now = podCidrs.map(parsePrefix)
  return perFamily(lease.subnet).every(([family, prefix]) => {
    const there = now.find((one) => one?.ip.family === family)
    return there !== undefined && samePrefix(network(there), prefix)
  })
}
