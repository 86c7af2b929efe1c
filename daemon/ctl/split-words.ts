// Splits a command line into flags and other words, so that they may be in any order.
import type { Flags } from '../cli/flag-parser.ts'

export type Words = { readonly flags: readonly string[]; readonly others: readonly string[] }

/** A flag that needs a value takes the next word, as in `--socket FILE`; what follows `--` is not a flag. */
export function splitWords(flags: Flags, words: readonly string[]): Words {
  const found: { flags: string[]; others: string[] } = { flags: [], others: [] }
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? ''
    if (word === '--') return { flags: found.flags, others: [...found.others, ...words.slice(at + 1)] }
    if (!word.startsWith('-')) {
      found.others.push(word)
      continue
    }
    found.flags.push(word)
    const name = word.replace(/^--?/, '')
    const next = words[at + 1]
    if (Object.hasOwn(flags, name) && flags[name]?.reader.placeholder !== '' && next !== undefined) {
      found.flags.push(next)
      at++
    }
  }
  return found
}
