// The path from a pod to a pod as the page shows it: the hops of an answer, or its lines where it has none.
import { ERROR, GOOD, NOT_ASKED } from './marks.ts'
import type { HopView, Mark, PathView } from './view-types.ts'

/** An answer to one question on the path; or why there is none. */
export type PathPart = {
  readonly heading: string
  readonly hops?: readonly HopView[]
  /** Of an answer without hops, as weftctl prints it. */
  readonly text?: string
  readonly isWrong: boolean
}

export function pathView(parts: readonly PathPart[]): PathView {
  return {
    summary: summaryOf(parts),
    parts: parts.map(({ heading, hops = [], text = '' }) => ({
      ...{ heading, hops },
      lines: text === '' ? [] : text.trimEnd().split('\n')
    }))
  }
}

function summaryOf(parts: readonly PathPart[]): Mark {
  const hops = parts.flatMap(({ hops = [] }) => hops)
  const first = hops.find(({ mark }) => mark.tone === 'bad')
  if (first !== undefined) return { ...ERROR, word: `First fault (${first.name}): ${first.text}` }
  const wrong = parts.find(({ isWrong }) => isWrong)
  if (wrong !== undefined) return { ...ERROR, word: `Fault: ${wrong.heading}` }
  if (hops.length > 0) return { ...GOOD, word: 'No fault was found on the hops that could be checked' }
  return { ...GOOD, word: 'No fault was found; no packet was sent to try the path' }
}

const MARKS: Readonly<Record<string, Mark>> = {
  whole: { ...GOOD, word: 'whole' },
  wrong: { ...ERROR, word: 'wrong' },
  unknown: { ...NOT_ASKED, word: 'not known' }
}

/** The hops of `way` in an answer of any weftd; `undefined` for one that follows no ways. */
export function hopsOf(answer: unknown): readonly HopView[] | undefined {
  const { way } = (answer ?? {}) as { readonly way?: { readonly hops?: unknown } }
  if (!Array.isArray(way?.hops)) return undefined
  return way.hops.map((hop: unknown) => {
    const { at, state, text, cure } = (hop ?? {}) as Readonly<Record<string, unknown>>
    const texts = [at, text, cure].map((each) => (typeof each === 'string' ? each : ''))
    const [name = '', said = '', action = ''] = texts
    return { mark: MARKS[String(state)] ?? { ...NOT_ASKED, word: String(state) }, name, text: said, cure: action }
  })
}
