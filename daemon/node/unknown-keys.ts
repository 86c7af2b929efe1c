// Keys of the network configuration that nobody reads: most are misspelled. Pure.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { nearest } from '../base/nearest.ts'
import { findKey, joinPath } from '../config/keys.ts'
import { netConfSchema } from '../config/net-conf.schema.ts'
import type { JsonObject } from '../config/net-conf.ts'

/** One phrase for each key that neither the network nor its backend knows, with its path and the nearest that is known. `text` is a valid configuration. */
export function unknownKeys(text: string, backend: Pick<ConfiguredBackend, 'type' | 'keys'>): readonly string[] {
  const written = JSON.parse(text) as JsonObject
  const below = findKey(written, 'Backend', '')
  return [
    ...strangers(written, Object.keys(netConfSchema.properties), '', 'the network'),
    ...(below === undefined
      ? []
      : strangers(below.value as JsonObject, ['Type', ...backend.keys], below.path, backend.type))
  ]
}

function strangers(keys: JsonObject, known: readonly string[], path: string, of: string): readonly string[] {
  const spelling = new Map(known.map((key) => [key.toLowerCase(), key]))
  return Object.keys(keys).flatMap((key) => {
    if (spelling.has(key.toLowerCase())) return []
    const near = spelling.get(nearest(key.toLowerCase(), [...spelling.keys()]) ?? '')
    return [`${joinPath(path, key)} is no key of ${of}${near === undefined ? '' : `; the nearest is ${near}`}`]
  })
}
