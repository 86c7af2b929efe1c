// The two ends of each way to a peer, and the digests by which peers are known.
import { contains, type Family, formatIp, type Ip, perFamily, sameIp } from '../../ipam/address.ts'
import type { Lease } from '../lease/lease.ts'
import { networksOf, type Place } from '../node/place.ts'
import { digest } from '../state/digest.ts'
import type { Digest, Way } from './probe-packet.ts'

export type Ends = { readonly source: Ip; readonly to: Ip }

/** The addresses of both ends by way; `undefined` where the nodes have not both this family. */
export function endsOf(
  lease: Lease,
  node: Place['node'],
  backend: Place['backend'],
  family: Family
): { readonly pods: Ends; readonly nodes: Ends } | undefined {
  const [own, theirs] = [node.subnet[family], lease.subnet[family]]
  const [local, there] = [node.localIp[family], lease.publicIp[family]]
  if (own === undefined || theirs === undefined || local === undefined || there === undefined) return undefined
  const pods = { source: backend.held(own, lease), to: backend.held(theirs, lease) }
  return { pods, nodes: { source: local, to: there } }
}

/**
 * Whether a probe from this address can be one of the peer. A pod can write the peer's digest, but has another address of
 * the pod network; to a node's address it may come with that of its own node.
 */
export function isSentBy(
  source: Ip,
  way: Way,
  { pods }: Pick<NonNullable<ReturnType<typeof endsOf>>, 'pods'>,
  conf: Place['conf'] | undefined
): boolean {
  if (way !== 'nodes') return sameIp(source, pods.to)
  return !perFamily(networksOf(conf)).some(([, network]) => contains(network, source))
}

export function digestOf(key: string, family: Family): Digest {
  const hex = digest(`${key} ${family}`)
  return { high: Number.parseInt(hex.slice(0, 8), 16), low: Number.parseInt(hex.slice(8), 16) }
}

export const lowOf = (text: string): number => Number.parseInt(digest(text).slice(8), 16)

/** Both ends of both ways, to find out whether they changed. */
export const textOf = (ends: { readonly pods: Ends; readonly nodes: Ends }): string =>
  [ends.pods, ends.nodes].map(({ source, to }) => `${formatIp(source)} ${formatIp(to)}`).join(' ')
