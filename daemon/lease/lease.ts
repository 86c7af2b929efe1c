// A lease: which node holds which subnet and how packets get there. flannel's etcd key and value, both ways.
import { formatIp, type Ip, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { Json } from '../config/net-conf.ts'

export type Lease = {
  /** Network addresses (no host bits); at least one family. */
  readonly subnet: PerFamily<Prefix>
  readonly publicIp: PerFamily<Ip>
  /** `vxlan`, `host-gw`, … as flannel spells them. */
  readonly backendType: string
  /** What the backend publishes, by tunnel family: flannel's BackendData and BackendV6Data. */
  readonly backendData: PerFamily<Json>
  /** Kubernetes node name, where the store knows it. */
  readonly node?: string
}

/** The name of a lease: flannel's etcd key without the prefix, as `10.2.14.0-24` or `10.2.14.0-24&fd00:2:e::-64`. */
export function leaseKey(lease: Pick<Lease, 'subnet'>): string {
  return perFamily(lease.subnet)
    .map(([, prefix]) => `${formatIp(prefix.ip)}-${prefix.length}`)
    .join('&')
}
