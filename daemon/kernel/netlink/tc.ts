// Header, handles and rates of traffic control messages. Structures from <linux/rtnetlink.h>, <linux/pkt_sched.h>.
import { MessageWriter } from './message.ts'

export const TC_H_ROOT = 0xffff_ffff
/** Handle of our discipline at a device's root: `1:`. */
export const ROOT_HANDLE = 0x0001_0000
export const TCA = { kind: 1, options: 2 } as const
export const TCA_U32 = { classid: 1, sel: 5, act: 7 } as const
/** TC_U32_TERMINAL: a match ends the search (struct tc_u32_sel). */
export const TC_U32_TERMINAL = 1
/** struct tcmsg. */
export const TCMSG = 20
export const MOST = 0xffff_ffff
const TC_LINKLAYER_ETHERNET = 1

export const trafficMessage = (
  type: number,
  flags: number,
  index: number,
  handle: number,
  parent: number,
  details = 0
): MessageWriter => new MessageWriter(type, flags).fixed([4, 0], [4, index], [4, handle], [4, parent], [4, details])

export type Fields = readonly (readonly [octets: 1 | 2 | 4, value: number])[]

/** struct tc_ratespec: a rate of 32 bits, which RATE64 replaces where it does not fit. */
export const rateSpec = (rate: number): Fields => [
  [1, 0],
  [1, rate === 0 ? 0 : TC_LINKLAYER_ETHERNET],
  [2, 0],
  [2, 0],
  [2, 0],
  [4, Math.min(rate, MOST)]
]

export function fields(list: Fields): Buffer {
  const bytes = Buffer.alloc(list.reduce((sum, [octets]) => sum + octets, 0))
  let at = 0
  for (const [octets, value] of list) at = bytes.writeUIntLE(value, at, octets)
  return bytes
}

export function bigRate(rate: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(rate))
  return bytes
}

export const zeros = (octets: number): Fields => Array.from({ length: octets / 4 }, () => [4, 0] as const)

/** The kernel reports a bucket's size as the time to fill it, in units of 64 ns. */
export const bytesIn = (ticks: number, rate: number): number => Math.round((ticks * 64 * rate) / 1e9)
export const ticksFor = (bytes: number, rate: number): number =>
  Math.min(Math.round((bytes * 1e9) / (64 * Math.max(rate, 1))), MOST)
