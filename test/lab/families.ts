// Networks with IPv6 for the stories: their configurations, and pods that reach each other in every family they have.
import assert from 'node:assert/strict'
import { isIPv6 } from 'node:net'
import { type Cluster, PREFIX, type Resident, reachEachOther } from './cluster.ts'
import type { Json } from './cni.ts'
import type { Host } from './host.ts'
import type { Place } from './lab-scene.ts'
import { until } from './run.ts'

export const IPV6_NETWORK = 'fd00:244::/48'
export const DUAL = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: IPV6_NETWORK } satisfies Json
export const ONLY_IPV6 = { EnableIPv4: false, EnableIPv6: true, IPv6Network: IPV6_NETWORK } satisfies Json

/** The pod's addresses, without lengths, in the order of its ADD's result. */
export const addressesOf = ({ result }: Resident): readonly string[] =>
  (result.ips as readonly { readonly address: string }[]).map(({ address }) => address.split('/')[0] ?? '')

export const ipv6Of = (resident: Resident): string =>
  addressesOf(resident).find((address) => isIPv6(address)) ?? assert.fail(`${resident.id} has no IPv6 address`)

/** Every pod reaches every other in each of `families`; a pod that lacks one fails. */
export async function reachInFamilies(residents: readonly Resident[], families: readonly (4 | 6)[]): Promise<void> {
  for (const family of families)
    await reachEachOther(
      residents.map((resident) => ({
        ...resident,
        address:
          addressesOf(resident).find((address) => isIPv6(address) === (family === 6)) ??
          assert.fail(`${resident.id} has no IPv${family} address`)
      }))
    )
}

/** A host's address for IPv6. */
export const address6Of = (host: Host): string => host.address6 ?? assert.fail(`${host.name} has no IPv6 address`)

export type StoredLease = {
  readonly key: string
  readonly subnets: readonly string[]
  readonly value: {
    readonly PublicIP: string
    readonly PublicIPv6: string | null
    readonly BackendType: string
    readonly BackendData?: { readonly VNI: number; readonly VtepMAC: string }
    readonly BackendV6Data?: { readonly VNI: number; readonly VtepMAC: string }
  }
}

/** The leases in etcd, by what they publish: `of(host)`. */
export async function leasesOf({ etcd }: Pick<Cluster, 'etcd'>): Promise<readonly StoredLease[]> {
  const leases = await etcd.list(`${PREFIX}/subnets/`)
  return [...leases].map(([path, value]) => {
    const key = path.slice(`${PREFIX}/subnets/`.length)
    const subnets = key
      .split('&')
      .filter((part) => part !== '0.0.0.0-0')
      .map((part) => part.replace(/-(\d+)$/, '/$1'))
    return { key, subnets, value: JSON.parse(value) }
  })
}

export async function leaseOf(cluster: Pick<Cluster, 'etcd'>, host: Host): Promise<StoredLease> {
  const leases = await leasesOf(cluster)
  const isIts = ({ value }: StoredLease) =>
    value.PublicIP === host.address || (value.PublicIPv6 !== null && value.PublicIPv6 === host.address6)
  return leases.find(isIts) ?? assert.fail(`no lease of ${host.name} among ${JSON.stringify(leases)}`)
}

/** The source address with which an ICMP echo request for `target` arrives at `place`. */
export async function sourceSeenBy(place: Place, from: Place, target: string): Promise<string> {
  const filter = isIPv6(target) ? 'icmp6 and ip6[40] == 128' : 'icmp[icmptype] == icmp-echo'
  await using capture = place.spawn('tcpdump', ['-n', '-l', '-c', '1', '-i', 'any', filter])
  await until(() => capture.text().includes('listening'), { what: 'tcpdump to listen' })
  const isSeen = async () => {
    await from.ping(target)
    return capture.ended
  }
  await until(isSeen, { what: `a packet to ${target}` })
  return /IP6? ([\da-f.:]+) > /.exec(capture.text())?.[1] ?? assert.fail(capture.text())
}
