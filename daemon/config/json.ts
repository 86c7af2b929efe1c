// Types of parsed JSON, for configuration keys and backend data before validation; how deep it may be nested.
import { endOfString } from '../../plugins/cni/json-string.ts'

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export type JsonObject = { readonly [key: string]: Json }

/**
 * Arrays and objects inside each other; flannel's formats have three. JSON.parse takes any number, but JSON.stringify of
 * the result overflows the stack from some thousands on.
 */
const DEEPEST = 64

/** What is accepted: whoever may write to the store must not end weftd with a text. */
export const NESTED_JSON = `JSON with at most ${DEEPEST} arrays and objects inside each other`

/** Brackets in strings do not count. What is no JSON gets some answer. */
export function isTooDeep(text: string): boolean {
  // Each needs its two brackets.
  if (text.length < 2 * DEEPEST) return false
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '"') at = endOfString(text, at)
    else if (character === '[' || character === '{') depth++
    else if (character === ']' || character === '}') depth--
    if (depth > DEEPEST) return true
  }
  return false
}
