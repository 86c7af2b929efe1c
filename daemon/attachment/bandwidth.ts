// Throughput limits of a pod as queueing disciplines on the host, where the pod can't remove them.
import type { Bandwidth, RateLimit } from '../../plugins/attachment.ts'
import { divided } from '../state/division.ts'
import type { Discipline, Division, KernelObject, Link } from '../state/object.ts'
import { ifbName } from '../state/ownership.ts'
import { ifbMac } from './identity.ts'

/** As in the reference: how long a packet may wait in the queue once the burst is used up. */
const LATENCY_SECONDS = 0.025
/** Bytes before those that the MTU counts; a bucket smaller than one frame would pass none. */
const ETHERNET_HEADER = 14
const MOST = 2 ** 32 - 1

/**
 * `link`: the pod's on the host; its `ifb` gets the same alias. Traffic to the pod is shaped at the link's root,
 * traffic from the pod on an ifb: ingress can't be queued.
 */
export function bandwidthObjects(
  link: Link,
  bandwidth: Bandwidth | undefined,
  ifb: string = ifbName(link.name)
): readonly KernelObject[] {
  const { ingress, egress, only } = bandwidth ?? {}
  const mtu = link.mtu ?? 1500
  const root = (device: string, limit: RateLimit, side: Division['side']): KernelObject => {
    const bucket = tokenBucket(limit, mtu)
    const discipline: Discipline =
      only === undefined ? { type: 'tbf', ...bucket } : divided({ ...bucket, ...only, side })
    return { kind: 'qdisc', device, parent: 'root', discipline }
  }
  const towards = ingress === undefined ? [] : [root(link.name, ingress, 'source')]
  if (egress === undefined) return towards
  return [
    ...towards,
    {
      kind: 'link',
      name: ifb,
      form: { type: 'ifb' },
      up: true,
      mtu,
      mac: ifbMac(ifb),
      ...(link.alias === undefined ? {} : { alias: link.alias })
    },
    { kind: 'qdisc', device: link.name, parent: 'ingress', discipline: { type: 'redirect', to: ifb } },
    root(ifb, egress, 'destination')
  ]
}

/** CNI counts bits, the kernel bytes. */
function tokenBucket(
  { rateBitsPerSecond, burstBits }: RateLimit,
  mtu: number
): Pick<Division, 'rate' | 'burst' | 'limit'> {
  const rate = Math.floor(rateBitsPerSecond / 8)
  const burst = Math.max(Math.floor(burstBits / 8), mtu + ETHERNET_HEADER)
  return { rate, burst, limit: Math.min(Math.floor(rate * LATENCY_SECONDS) + burst, MOST) }
}
