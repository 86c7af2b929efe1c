// Finds keys of the network configuration that neither Weft nor its backend reads: most are misspelled.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { nearest } from '../base/nearest.ts'
import { shortened } from '../base/printable.ts'
import type { JsonObject } from '../config/json.ts'
import { findKey, joinPath } from '../config/keys.ts'
import { netConfSchema } from '../config/net-conf.schema.ts'

export type UnknownKey = {
  readonly path: string
  /** A phrase with the path and the nearest known key. */
  readonly text: string
}

/** Keys of one object that are named, and characters of a key: a configuration may have 100,000 of them. */
const NAMED = 8
const LONGEST = 81

/** The unknown keys, the first few of each object. `text` is a valid configuration. */
export function unknownKeys(text: string, backend: Pick<ConfiguredBackend, 'type' | 'keys'>): readonly UnknownKey[] {
  const written = JSON.parse(text) as JsonObject
  const below = findKey(written, 'Backend', '')
  return [
    ...unknownIn(written, Object.keys(netConfSchema.properties), '', 'the network'),
    ...(below === undefined
      ? []
      : unknownIn(below.value as JsonObject, ['Type', ...Object.keys(backend.keys)], below.path, backend.type))
  ]
}

function unknownIn(keys: JsonObject, known: readonly string[], path: string, of: string): readonly UnknownKey[] {
  const spelling = new Map(known.map((key) => [key.toLowerCase(), key]))
  const unknown = Object.keys(keys).filter((key) => !spelling.has(key.toLowerCase()))
  return unknown.slice(0, NAMED).map((key, index) => {
    const near = spelling.get(nearest(key.toLowerCase(), [...spelling.keys()]) ?? '')
    const at = joinPath(path, shortened(key, LONGEST))
    const more = index === NAMED - 1 && unknown.length > NAMED ? `; ${unknown.length - NAMED} more are unknown` : ''
    return { path: at, text: `${at} is no key of ${of}${near === undefined ? '' : `; the nearest is ${near}`}${more}` }
  })
}
