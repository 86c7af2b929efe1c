// A row of the lease file as a lease, with flannel's key and value.
import { type Lease, parseLease, parseLeaseKey } from '../../lease/lease.ts'
import type { Row } from './file.ts'

/** The lease in a row. Errors: LEASE_MALFORMED. */
export function readRecord({ key, value, node, created }: Row): Lease {
  return { ...parseLease(key, value), created, ...(node !== null && { node }) }
}

/**
 * The lease that occupies a row's subnet; a row that cannot be parsed occupies it too, without publishing an address.
 * `undefined`: the key names no subnet.
 */
export function takenBy(row: Row): Lease | undefined {
  const subnet = parseLeaseKey(row.key)
  if (subnet === undefined) return undefined
  try {
    return readRecord(row)
  } catch {
    return { subnet, publicIp: {}, backendType: '', backendData: {} }
  }
}
