// From what was sent, answered and heard to what is wrong with a way to a peer. The peer's own probes tell the
// direction: that they arrive shows the way back, and they say when the peer last heard ours.

/** `out`: from this node to the peer. `lost`: both directions, or which one is not known. */
export type Verdict = 'whole' | 'out-lost' | 'back-lost' | 'lost' | 'large-lost' | 'host-firewall' | 'not-asked'
/** Worst first. */
export const SEVERITY: readonly Verdict[] = [
  'lost',
  'out-lost',
  'back-lost',
  'large-lost',
  'host-firewall',
  'not-asked',
  'whole'
]

/** Whether a verdict says that packets are lost. */
export const isBad = (verdict: Verdict): boolean => verdict !== 'whole' && verdict !== 'not-asked'

/** Whether packets get through a direction; `undefined`: nothing shows it. */
export type Direction = boolean | undefined

/** One size on one way. */
export type LaneFacts = {
  readonly state: 'answered' | 'missed' | 'open'
  /** The peer said that it heard a probe sent after the first unanswered one; `false`: it said that it did not. */
  readonly out: Direction
  /** We heard the peer since then; `false`: it does send, as another way shows, and nothing came. */
  readonly back: Direction
}

export type WayFacts = { readonly small: LaneFacts; readonly large: LaneFacts | undefined }

export type Judgement = { readonly verdict: Verdict; readonly out: Direction; readonly back: Direction }

export const WHOLE: Judgement = { verdict: 'whole', out: true, back: true }
const OPEN: Judgement = { verdict: 'not-asked', out: undefined, back: undefined }

export function judge({ small, large }: WayFacts): Judgement {
  if (small.state === 'missed') return direction(small)
  if (small.state === 'open') return OPEN
  if (large === undefined || large.state === 'answered') return WHOLE
  if (large.state === 'open') return OPEN
  const { out, back } = large
  // Large requests arrive in both directions, and only the answers are missing: a rule about large pings.
  return { verdict: out === true && back === true ? 'host-firewall' : 'large-lost', out, back }
}

function direction({ out, back }: LaneFacts): Judgement {
  if (out === true && back === true) return { verdict: 'host-firewall', out, back }
  if (back === true && out === false) return { verdict: 'out-lost', out, back }
  if (out === true && back === false) return { verdict: 'back-lost', out, back }
  return { verdict: 'lost', out, back }
}
