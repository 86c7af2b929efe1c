// One etcd key under subnets/ as a lease record, and a complete listing of them.
import { WeftError } from '../../base/error.ts'
import { type Lease, leaseKey, parseLease, parseLeaseKey } from '../../lease/lease.ts'
import type { LeaseEvent } from '../../lease/store.ts'
import type { KeyValue } from './messages.ts'

/** The lease in a record, or why it cannot be read. */
export type RecordEvent = Extract<LeaseEvent, { kind: 'put' | 'malformed' }>

/** A key under subnets/ with its value, parsed. */
export type LeaseRecord = KeyValue & { readonly parsed: RecordEvent }

export type LeaseListing = {
  readonly revision: number
  readonly records: readonly LeaseRecord[]
  /** How many of our own writes etcd had acknowledged when the listing was requested. */
  readonly writes: number
}

export function readRecord(record: KeyValue): LeaseRecord {
  const { key, value, created } = record
  try {
    return { ...record, parsed: { kind: 'put', lease: { ...parseLease(key, value), created } } }
  } catch (error) {
    if (error instanceof WeftError) return { ...record, parsed: { kind: 'malformed', key: nameOf(key), error } }
    throw error
  }
}

/** A lease's name from its etcd key: as `leaseKey` writes it, or the key's last part where that names no subnet. */
export function nameOf(key: string): string {
  const subnet = parseLeaseKey(key)
  return subnet === undefined ? key.slice(key.lastIndexOf('/') + 1) : leaseKey({ subnet })
}

/**
 * The lease that occupies a record's subnet; a record that cannot be parsed occupies it too, without publishing an
 * address. `undefined`: the key names no subnet.
 */
export function takenBy({ key, parsed }: LeaseRecord): Lease | undefined {
  if (parsed.kind === 'put') return parsed.lease
  const subnet = parseLeaseKey(key)
  return subnet && { subnet, publicIp: {}, backendType: '', backendData: {} }
}
