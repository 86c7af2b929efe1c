// Which peer is asked when: in small networks each every five seconds; in larger ones neighbours every five seconds and
// all within ten minutes; one whose answers are missing sooner. Times are in tenths of a second.

/** Between two probes of a peer, in a network of few and of a neighbour. */
const OFTEN = 50
/** So many peers are asked every OFTEN; with more, the time between two probes of a peer grows. */
const FEW = 16
/** All peers within ten minutes, whatever their number, with time for repetitions. */
const PASS = 5_400
/** Neighbours of a node in a large network, on average. */
const NEIGHBOURS = 10
/** After the first, second and third probe without an answer. */
const PATIENCE = [10, 20, 40] as const
/** So many unanswered probes mean that a way is lost. */
export const MISSES = PATIENCE.length
/** So many lost peers are asked every OFTEN; with more, each less often. */
const LOST = 64

/** Whether there are so many peers that they are not asked all at a time. */
export const isMany = (peers: number): boolean => peers > FEW

/** How long to wait for the answers before they are missed, after so many misses. */
export const patience = (misses: number): number => PATIENCE[Math.min(misses, MISSES - 1)] ?? 10

/**
 * From a probe that was answered to the next one of this peer. `pair`: a number of 32 bits that is the same on both
 * nodes.
 */
export function interval(peers: number, pair: number): number {
  if (!isMany(peers) || pair % peers < NEIGHBOURS) return OFTEN
  return Math.min(PASS, Math.ceil((peers * OFTEN) / FEW))
}

/** From a probe of a lost peer to the next one. */
export const lostInterval = (lost: number): number => Math.max(OFTEN, Math.ceil((lost * OFTEN) / LOST))

/** A different moment within the interval for each pair, so that not all nodes ask one at the same time. */
export const phase = (pair: number, within: number): number => pair % Math.max(1, within)

/** The same number for both nodes of a pair, from digests of their lease keys. */
export function pairOf(a: number, b: number): number {
  // Murmur's finalizer: neighbouring digests must not give neighbouring numbers.
  let mixed = (a ^ b) >>> 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
