// Makes text from outside fit for one line of a terminal or a log: control characters and invisible ones are escaped,
// passwords in URLs left out. Backend types, pod names, error texts of servers and programs may contain anything.

/**
 * Controls (terminal escapes, newlines), format characters (bidirectional overrides, zero width), line and paragraph
 * separators, lone surrogates.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

const escaped = (character: string): string =>
  [...Array(character.length).keys()]
    .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`)
    .join('')

/** User and password of a URL (RFC 3986, section 3.2.1), also where a password contains an unescaped @. */
const USERINFO = /([a-z][a-z0-9+.-]*:\/\/)[^/\s"'<>]*@/gi
/** The same where the password has an unescaped slash, which makes the URL invalid; a port is no password. */
const BROKEN_USERINFO = /([a-z][a-z0-9+.-]*:\/\/)[^/\s"'<>@:]*:(?!\d*\/)[^\s"'<>@]*@/gi

/** The text without user and password in its URLs. */
export const withoutPasswords = (text: string): string =>
  text.includes('://') && text.includes('@')
    ? text.replace(USERINFO, '$1(not shown)@').replace(BROKEN_USERINFO, '$1(not shown)@')
    : text

/** The text as one printable line, without passwords of URLs. Nothing changes when it is printed twice. */
export const printable = (text: string): string =>
  withoutPasswords(text).replace(UNPRINTABLE, (character) => SHORT[character] ?? escaped(character))

/** The same for JSON text, whose own line breaks stay: its values do not change, apart from passwords. */
export const printableJson = (json: string): string =>
  withoutPasswords(json).replace(UNPRINTABLE, (character) =>
    SHORT[character] === undefined ? escaped(character) : character
  )

/** A value of JSON with every string in it, and every key, printable. */
export function printableValue(value: unknown): unknown {
  if (typeof value === 'string') return printable(value)
  if (Array.isArray(value)) return value.map(printableValue)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [printable(key), printableValue(inner)]))
}

/** A text as one word for bash, zsh and fish, which knows backslashes inside. */
export const shellQuoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`

/** For messages that name the first of several: how many there are besides. */
export const andMore = (count: number): string => (count === 0 ? '' : ` (and ${count} more)`)

/** The beginning of a text that may be long, for messages that quote it; at most `most` characters. */
export const shortened = (text: string, most = 80): string =>
  text.length > most ? `${text.slice(0, most - 1)}…` : text
