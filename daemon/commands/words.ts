// Splits a command line into words without a shell: quotes and variables as sh has them, and nothing else of its syntax.

/** Text, and variables that are filled in as a whole: what they hold is never split or read again. */
export type Word = readonly (string | { readonly variable: string })[]

const VARIABLE = String.raw`\$(?:(?<name>[A-Za-z_]\w*)|\{(?<braced>[A-Za-z_]\w*)\})`
/** A piece of a word outside of quotes. What none of these begins with, a shell would not take literally. */
const BARE = new RegExp(
  String.raw`'(?<single>[^']*)'|"(?<double>(?:[^"\\]|\\[^])*)"|${VARIABLE}|\\(?<escaped>[^\n])|(?<plain>[^\s'"$\\;|&<>()\x60*?[]+)`,
  'y'
)
/** A piece of what stands between double quotes. */
const QUOTED = new RegExp(
  String.raw`${VARIABLE}|\\(?<escaped>["\\$\x60])|(?<plain>[^$\x60\\]+|\\(?=[^"\\$\x60\n]))`,
  'y'
)

export class ShellSyntax extends Error {}

const found = (what: string, at: number): ShellSyntax =>
  new ShellSyntax(`has ${what} at character ${at + 1}, which needs a shell`)

/** The words of a command line; at least one. Errors: ShellSyntax. */
export function parseWords(text: string): readonly Word[] {
  const words: Word[] = []
  let at = 0
  for (;;) {
    while (text[at] === ' ' || text[at] === '\t') at++
    if (at >= text.length) break
    if (text[at] === '#') throw found('a comment', at)
    if (text[at] === '~') throw found('"~"', at)
    const [word, end] = wordAt(text, at)
    words.push(word)
    at = end
  }
  const [first] = words
  if (first === undefined) throw new ShellSyntax('has no words')
  if (typeof first[0] === 'string' && /^[A-Za-z_]\w*=/.test(first[0])) throw found('an assignment', 0)
  return words
}

function wordAt(text: string, from: number): readonly [Word, number] {
  const parts: Word[number][] = []
  let at = from
  while (at < text.length && !/[ \t]/.test(text[at] ?? '')) {
    const [piece, end] = pieceAt(BARE, text, at, at)
    const { double } = piece
    if (double === undefined) parts.push(partOf(piece))
    else
      for (let inner = 0; inner < double.length; ) {
        const [part, next] = pieceAt(QUOTED, double, inner, at + 1 + inner)
        parts.push(partOf(part))
        inner = next
      }
    at = end
  }
  return [parts, at]
}

type Piece = Readonly<Record<string, string | undefined>>

/** `shown` is where it stands in the whole text. */
function pieceAt(pattern: RegExp, text: string, at: number, shown: number): readonly [Piece, number] {
  pattern.lastIndex = at
  const groups = pattern.exec(text)?.groups
  if (groups !== undefined) return [groups, pattern.lastIndex]
  const character = text[at] ?? ''
  if (character === '$') throw found('"$" without the name of a variable', shown)
  if (character === '"' || character === "'") throw found('a quote without an end', shown)
  throw found(JSON.stringify(character), shown)
}

const partOf = ({ name, braced, single, escaped, plain }: Piece): Word[number] => {
  const variable = name ?? braced
  return variable === undefined ? (single ?? escaped ?? plain ?? '') : { variable }
}

/** Words with the variables filled in; one that is not set is empty, as in a shell. */
export const filledIn = (
  words: readonly Word[],
  environment: Readonly<Record<string, string | undefined>>
): readonly string[] =>
  words.map((word) =>
    word.map((part) => (typeof part === 'string' ? part : (environment[part.variable] ?? ''))).join('')
  )
