// Finds keys of the network configuration that neither Weft nor its backend reads: most are misspelled.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { nearest } from '../base/nearest.ts'
import type { JsonObject } from '../config/json.ts'
import { findKey, joinPath } from '../config/keys.ts'
import { netConfSchema } from '../config/net-conf.schema.ts'

export type UnknownKey = {
  readonly path: string
  /** A phrase with the path and the nearest known key. */
  readonly text: string
}

/** The unknown keys. `text` is a valid configuration. */
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
  return Object.keys(keys).flatMap((key) => {
    if (spelling.has(key.toLowerCase())) return []
    const near = spelling.get(nearest(key.toLowerCase(), [...spelling.keys()]) ?? '')
    const at = joinPath(path, key)
    return [{ path: at, text: `${at} is no key of ${of}${near === undefined ? '' : `; the nearest is ${near}`}` }]
  })
}
