// Made-up nodes: the n-th one's subnet, public address and VTEP, in flannel's form.
export interface WrittenLease {
  /** `10.0.7.0-24`, as in the key. */
  readonly subnet: string
  readonly publicIp: string
  readonly backend: 'vxlan' | 'host-gw'
  readonly vtepMac: string
}

const octet = (value: number) => value & 0xff
const hex = (value: number) => octet(value).toString(16).padStart(2, '0')

/**
 * Node n of up to 60,000. Subnets are 10.64.0.0/24 and on, public addresses 172.20.1.0 and on, in the /16 that measured
 * hosts have on eth0 for host-gw: nobody answers there, and no packet is sent.
 */
export function fakeLease(n: number, backend: WrittenLease['backend']): WrittenLease {
  if (!Number.isInteger(n) || n < 0 || n >= 60_000) throw new Error(`node ${n} is not in 0…59999`)
  return {
    subnet: `10.${64 + (n >> 8)}.${octet(n)}.0-24`,
    publicIp: `172.20.${1 + (n >> 8)}.${octet(n)}`,
    backend,
    vtepMac: `0e:00:00:${hex(n >> 16)}:${hex(n >> 8)}:${hex(n)}`
  }
}

export function subnetKey(prefix: string, lease: WrittenLease): string {
  return `${prefix}/subnets/${lease.subnet}`
}

/** The value as flanneld writes it. */
export function writtenValue({ publicIp, backend, vtepMac }: WrittenLease): string {
  const value = { PublicIP: publicIp, PublicIPv6: null, BackendType: backend }
  return JSON.stringify(backend === 'vxlan' ? { ...value, BackendData: { VNI: 1, VtepMAC: vtepMac } } : value)
}
