// What stands in etcd under one key of a network's subnets, and all of them as one listing has them.
import { WeftError } from '../../base/error.ts'
import { type Lease, leaseKey, parseLease, parseLeaseKey } from '../../lease/lease.ts'
import type { LeaseEvent } from '../../lease/store.ts'
import type { KeyValue } from './messages.ts'

/** What a record says: its lease, or why none can be read. */
export type RecordEvent = Extract<LeaseEvent, { kind: 'put' | 'malformed' }>

/** A key under subnets/ with what stands under it. */
export type LeaseRecord = KeyValue & { readonly says: RecordEvent }

export type LeaseListing = {
  readonly revision: number
  readonly records: readonly LeaseRecord[]
  /** How many writes of our own etcd had answered when the listing was asked for. */
  readonly writes: number
}

export function readRecord(record: KeyValue): LeaseRecord {
  const { key, value } = record
  try {
    return { ...record, says: { kind: 'put', lease: parseLease(key, value) } }
  } catch (error) {
    if (error instanceof WeftError) return { ...record, says: { kind: 'malformed', key: nameOf(key), error } }
    throw error
  }
}

/** A lease's name from its etcd key: as `leaseKey` writes it, or the key's last part where that names no subnet. */
export function nameOf(key: string): string {
  const subnet = parseLeaseKey(key)
  return subnet === undefined ? key.slice(key.lastIndexOf('/') + 1) : leaseKey({ subnet })
}

/** The lease that keeps others from a record's subnet. One that can't be read does so too, though nobody publishes it. `undefined`: the key names no subnet. */
export function takenBy({ key, says }: LeaseRecord): Lease | undefined {
  if (says.kind === 'put') return says.lease
  const subnet = parseLeaseKey(key)
  return subnet && { subnet, publicIp: {}, backendType: '', backendData: {} }
}
