// Fingerprint of an HTB division: one number to compare, since the kernel reports its classes and filters one by one.
import { formatPrefix, network } from '../../ipam/address.ts'
import { digest } from './digest.ts'
import type { Discipline, Division } from './object.ts'

/** More than 0, and with 31 bits. A bucket's burst is in its limit. */
export function fingerprintOf({ rate, limit, side, limits, subnets }: Division): number {
  const texts = [...new Set(subnets.map((prefix) => formatPrefix(network(prefix))))].sort()
  return (Number.parseInt(digest([rate, limit, side, limits, ...texts].join(' ')).slice(0, 8), 16) >>> 1) | 1
}

export const divided = (division: Division): Discipline => ({
  type: 'htb',
  fingerprint: fingerprintOf(division),
  division
})
