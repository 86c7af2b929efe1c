// How a device limits its packets: the queueing disciplines of traffic control.
import type { Prefix } from '../../ipam/address.ts'

/** How a device limits its packets. */
export type Discipline =
  /** A token bucket (tc-tbf(8)) for what leaves the device. */
  | {
      readonly type: 'tbf'
      /** Bytes per second. */
      readonly rate: number
      /** Burst in bytes. Not compared: the kernel reports it as a time in steps of 64 ns; `limit` contains it. */
      readonly burst: number
      /** Bytes of the queue, the burst included. */
      readonly limit: number
    }
  /**
   * A token bucket for a part of what leaves the device (tc-htb(8)). `fingerprint` (division.ts) is compared; only a
   * dump has the rest.
   */
  | { readonly type: 'htb'; readonly fingerprint: number; readonly division?: Division }
  /** Ingress is redirected to another device (tc-mirred(8)). */
  | { readonly type: 'redirect'; readonly to: string }
  /** Anything that Weft never creates. */
  | { readonly type: 'other'; readonly of: string }

/**
 * Limits packets whose address on this side is in one of the prefixes, or all others; the rest passes without delay.
 */
export type Division = {
  /** As for a token bucket. */
  readonly rate: number
  readonly burst: number
  readonly limit: number
  readonly side: 'source' | 'destination'
  readonly limits: 'these' | 'others'
  readonly subnets: readonly Prefix[]
}
