// Reads keys of a configuration object as Go's JSON decoder does: regardless of case, null as absent. Errors name path,
// value and rule.
import { WeftError } from '../base/error.ts'
import { shortened } from '../base/printable.ts'
import type { Json, JsonObject } from './json.ts'
import { isSecretKey } from './secrets.ts'

/** Location of a value: `Backend.VNI` in `etcd key /coreos.com/network/config`. Without `source` the caller adds it. */
export type Place = { readonly path: string; readonly source?: string }

/**
 * An error about one configured value. `path` is spelled as the user spelled it; `rule` completes "must be …". A secret
 * is not quoted, since it may be all but right.
 */
export function invalid(place: Place, value: Json | undefined, rule: string): WeftError {
  const where = place.source === undefined ? '' : ` in ${place.source}`
  const quoted = isSecretKey(place.path.split('.').at(-1) ?? '') ? 'not valid' : shortened(JSON.stringify(value) ?? '')
  const shown = value === undefined ? 'is missing' : `is ${quoted}`
  return new WeftError(
    'CONFIG_INVALID',
    `${place.path} ${shown}${where}; it must be ${rule}`,
    `correct ${place.path}${where}`
  )
}

/** `Backend` + `VNI` → `Backend.VNI`; names with other characters are quoted. */
export const joinPath = (path: string, name: string): string =>
  /^[\w-]+$/.test(name) ? (path === '' ? name : `${path}.${name}`) : `${path}[${JSON.stringify(name)}]`

/**
 * The entry whose key equals `name` without regard to case; of several the last one written, as in Go's encoding/json.
 * `undefined` when absent or null. `path` is the path of `keys` itself; the answer's path is spelled as the user did.
 */
export function findKey(
  keys: JsonObject,
  name: string,
  path = 'Backend'
): { readonly value: NonNullable<Json>; readonly path: string } | undefined {
  const wanted = name.toLowerCase()
  const found = Object.entries(keys).findLast(([key]) => key.toLowerCase() === wanted)
  return found === undefined || found[1] === null ? undefined : { value: found[1], path: joinPath(path, found[0]) }
}

/** A whole number in `min`…`max`; `default` when absent. Errors: CONFIG_INVALID. */
export function integerKey(
  keys: JsonObject,
  name: string,
  rule: { readonly min: number; readonly max: number; readonly default: number },
  path = 'Backend'
): number {
  const found = findKey(keys, name, path)
  if (found === undefined) return rule.default
  const { value } = found
  if (typeof value === 'number' && Number.isInteger(value) && value >= rule.min && value <= rule.max) return value
  const quotes = typeof value === 'string' && /^\d+$/.test(value) ? ', without quotes' : ''
  throw invalid(found, value, `a whole number from ${rule.min} to ${rule.max}${quotes}`)
}

/** true or false; `fallback` when absent. Errors: CONFIG_INVALID. */
export function booleanKey(keys: JsonObject, name: string, fallback: boolean, path = 'Backend'): boolean {
  const found = findKey(keys, name, path)
  if (found === undefined) return fallback
  if (typeof found.value === 'boolean') return found.value
  throw invalid(found, found.value, 'true or false, without quotes')
}

/**
 * A string; if `allowed` is set one of those, compared regardless of case and returned as spelled there. Errors:
 * CONFIG_INVALID.
 */
export function textKey(
  keys: JsonObject,
  name: string,
  rule: { readonly allowed?: readonly string[]; readonly default: string },
  path = 'Backend'
): string {
  const found = findKey(keys, name, path)
  if (found === undefined) return rule.default
  const { value } = found
  const { allowed } = rule
  if (typeof value === 'string') {
    const known = allowed === undefined ? value : allowed.find((word) => word.toLowerCase() === value.toLowerCase())
    if (known !== undefined) return known
  }
  throw invalid(
    found,
    value,
    allowed === undefined ? 'a text in quotes' : `one of ${allowed.map((word) => `"${word}"`).join(', ')}`
  )
}
