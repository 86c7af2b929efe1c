// Signs and words of the states that the page shows.
import type { Verdict } from '../../api/path-answers.ts'
import type { Mark } from './view-types.ts'

/** Of a path: what probes found, this node itself, and what no answer tells. */
export type PathState = Verdict | 'self' | 'unknown'

/** In the order of the legend, the worst first. Signs are characters of every font. */
export const PATH_STATES: Readonly<Record<PathState, Mark & { readonly letter: string }>> = {
  lost: { letter: 'x', sign: '×', word: 'lost, direction unknown', tone: 'bad' },
  'out-lost': { letter: 'o', sign: '→', word: 'one way: outbound lost', tone: 'bad' },
  'back-lost': { letter: 'b', sign: '←', word: 'one way: return lost', tone: 'bad' },
  'large-lost': { letter: 'l', sign: 'L', word: 'large packets lost', tone: 'warning' },
  // Packets arrive; only echo to the node itself is not answered.
  'host-firewall': { letter: 'f', sign: 'F', word: "arriving; the node's firewall drops echo", tone: 'unknown' },
  'not-asked': { letter: 'n', sign: '○', word: 'not asked', tone: 'unknown' },
  unknown: { letter: 'u', sign: '?', word: 'not known here', tone: 'unknown' },
  whole: { letter: 'w', sign: '✓', word: 'whole', tone: 'good' },
  self: { letter: 's', sign: '–', word: 'the node itself', tone: 'unknown' }
}

const RANKS = Object.keys(PATH_STATES)

/** The worse of two states is the smaller number. */
export const rankOf = (state: PathState): number => RANKS.indexOf(state)

export const isBroken = (state: PathState): boolean => ['bad', 'warning'].includes(PATH_STATES[state].tone)

export const markOf = (state: PathState): Mark => {
  const { sign, word, tone } = PATH_STATES[state]
  return { sign, word, tone }
}

export const GOOD: Mark = { sign: '✓', word: 'ready', tone: 'good' }
export const NOT_READY: Mark = { sign: '×', word: 'not ready', tone: 'bad' }
export const NO_ANSWER: Mark = { sign: '×', word: 'no answer', tone: 'bad' }
export const NOT_ASKED: Mark = { sign: '○', word: 'not asked', tone: 'unknown' }
export const ERROR: Mark = { sign: '×', word: 'error', tone: 'bad' }
export const WARNING: Mark = { sign: '!', word: 'warning', tone: 'warning' }
