// The network configuration that this node used last, for the cure of a configuration that is missing.
import { shellQuoted, shortened } from '../base/printable.ts'
import type { Json } from './json.ts'
import { EXAMPLE } from './net-conf.ts'
import { hasSecret, mentionsSecret } from './secrets.ts'

export type LastConfiguration = {
  readonly text: string
  /** The file that has it, under the key `configuration`. */
  readonly path: string
}

/** Characters of a configuration that a cure quotes. */
const LONGEST = 400

/** For a message: whole where that is possible, else its beginning; nothing of one that may have a secret. */
export function shownText(text: string): string {
  const whole = quotable(text)
  if (whole !== undefined) return whole
  return mentionsSecret(text) || hasSecret(parsedOrNull(text)) ? '(not shown: it has a secret)' : shortened(text)
}

function parsedOrNull(text: string): Json {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** On one line; `undefined` if it is no JSON, too long to be quoted in a message, or has a secret. */
export function quotable(text: string): string | undefined {
  try {
    const parsed: Json = JSON.parse(text)
    const compact = JSON.stringify(parsed)
    return compact.length > LONGEST || hasSecret(parsed) ? undefined : compact
  } catch {
    return undefined
  }
}

/** What to write into the store: the last configuration, since another would renumber the nodes; else an example. */
export function configurationToWrite(last: LastConfiguration | undefined): string {
  if (last === undefined) return EXAMPLE
  const quoted = quotable(last.text)
  return quoted === undefined
    ? `the one that this node used last (${fromFile(last)})`
    : `${quoted}, which this node used last,`
}

/** The same as one argument for a shell. */
export function configurationArgument(last: LastConfiguration | undefined): string {
  if (last === undefined) return shellQuoted(EXAMPLE)
  const text = quotable(last.text)
  return text === undefined
    ? `"$(${fromFile(last)})" (the one that this node used last)`
    : `${shellQuoted(text)} (the one that this node used last)`
}

const fromFile = ({ path }: LastConfiguration): string => `jq -r .configuration ${path}`
