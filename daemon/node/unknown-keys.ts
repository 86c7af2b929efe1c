// Finds keys of the network configuration that neither Weft nor its backend reads: most are misspelled.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { nearest } from '../base/nearest.ts'
import type { JsonObject } from '../config/json.ts'
import { findKey, joinPath } from '../config/keys.ts'
import { netConfSchema } from '../config/net-conf.schema.ts'

/** One phrase for each unknown key, with its path and the nearest known one. `text` is a valid configuration. */
export function unknownKeys(text: string, backend: Pick<ConfiguredBackend, 'type' | 'keys'>): readonly string[] {
  const written = JSON.parse(text) as JsonObject
  const below = findKey(written, 'Backend', '')
  return [
    ...unknownIn(written, Object.keys(netConfSchema.properties), '', 'the network'),
    ...(below === undefined
      ? []
      : unknownIn(below.value as JsonObject, ['Type', ...backend.keys], below.path, backend.type))
  ]
}

function unknownIn(keys: JsonObject, known: readonly string[], path: string, of: string): readonly string[] {
  const spelling = new Map(known.map((key) => [key.toLowerCase(), key]))
  return Object.keys(keys).flatMap((key) => {
    if (spelling.has(key.toLowerCase())) return []
    const near = spelling.get(nearest(key.toLowerCase(), [...spelling.keys()]) ?? '')
    return [`${joinPath(path, key)} is no key of ${of}${near === undefined ? '' : `; the nearest is ${near}`}`]
  })
}
