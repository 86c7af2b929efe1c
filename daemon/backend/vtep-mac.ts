// The MAC address of a node's tunnel end as leases publish it: one reader for our own and for those of others.
import { findKey } from '../config/keys.ts'
import type { Json, JsonObject } from '../config/net-conf.ts'
import { type Mac, parseMac } from '../state/object.ts'

/** What stands under VtepMAC in any letter case, as it is written and as an address where it is one. */
export function publishedVtepMac(published: Json | undefined): {
  readonly written: Json
  readonly mac: Mac | undefined
} {
  const isObject = typeof published === 'object' && published !== null && !Array.isArray(published)
  const written = isObject ? (findKey(published as JsonObject, 'VtepMAC')?.value ?? null) : null
  return { written, mac: typeof written === 'string' ? parseMac(written) : undefined }
}
