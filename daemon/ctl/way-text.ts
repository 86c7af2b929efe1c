// Prints the path of a packet: a line for each hop, then the first fault with its cure.
import type { HopAnswer, WayAnswer, WayEndAnswer } from '../api/path-answers.ts'

const SIGNS: Readonly<Record<string, string>> = { whole: ' ', wrong: '!', unknown: '?' }
/** Longest name of a hop: `tunnel-neighbour`. */
const WIDTH = 16

/** `!` is wrong, `?` is not known. */
export function wayLines(way: WayAnswer): readonly string[] {
  const { back, backUnknown } = way
  return [
    ...oneWay(way),
    ...(back === undefined ? [] : ['', 'the path back, as that node sees it:', ...oneWay(back)]),
    ...(backUnknown === undefined ? [] : [`the path back is not known: ${backUnknown}`])
  ]
}

const oneWay = (way: WayAnswer): readonly string[] => [
  `path from ${endText(way.from)} to ${endText(way.to)}:`,
  ...way.hops.map(hopLine),
  ...(way.first === undefined ? [lastLine(way)] : firstLines(way.first))
]

/** No fault on it, nor on the path back where that is known; absent: none was followed. */
export const isWholeWay = (way: WayAnswer | undefined): boolean =>
  way === undefined || (way.first === undefined && way.back?.first === undefined)

const hopLine = ({ at, state, text }: HopAnswer): string => `  ${SIGNS[state] ?? '?'} ${at.padEnd(WIDTH)}  ${text}`

const firstLines = ({ at, text, cure }: HopAnswer): readonly string[] => [
  `first fault (${at}): ${text}`,
  ...(cure === undefined ? [] : [`cure: ${cure}`])
]

const lastLine = ({ answeredUs }: WayAnswer): string =>
  answeredUs === undefined
    ? 'nothing wrong was found, but no answer came'
    : `whole: an answer came after ${Math.round(answeredUs / 100) / 10} ms`

function endText({ kind, name, address }: WayEndAnswer): string {
  if (kind === 'host') return 'this host'
  if (kind === 'address') return address
  return `${kind} ${name} (${address})`
}
