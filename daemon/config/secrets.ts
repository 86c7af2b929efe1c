// Keys of the network configuration whose values no message quotes.
import type { Json } from './json.ts'

/** In lower case. */
const SECRETS: ReadonlySet<string> = new Set(['psk'])

export const isSecretKey = (name: string): boolean => SECRETS.has(name.toLowerCase())

/** Whether a configuration has such a key anywhere. */
export const hasSecret = (value: Json): boolean =>
  typeof value === 'object' &&
  value !== null &&
  Object.entries(value).some(([name, each]) => isSecretKey(name) || hasSecret(each))

/** Whether a text, which may be no JSON, seems to have one. */
export const mentionsSecret = (text: string): boolean => [...SECRETS].some((name) => text.toLowerCase().includes(name))
