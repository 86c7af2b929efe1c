// Validates a value against a schema compiled ahead by scripts/schemas.ts, and returns what an error message needs.
import type { Json } from './json.ts'
import { netConfSchema } from './net-conf.schema.ts'
import { netConf } from './schemas.generated.ts'

type Schema = {
  readonly type?: string
  readonly description?: string
  readonly properties?: { readonly [name: string]: Schema }
}
/** ajv's compiled code leaves its errors on the function. */
type Validate = {
  (value: Json): boolean
  readonly errors?:
    | readonly {
        readonly instancePath: string
        readonly keyword: string
        readonly params: { readonly missingProperty?: string }
      }[]
    | null
}

const SCHEMAS = {
  netConf: { schema: netConfSchema as Schema, validate: netConf as Validate }
} satisfies Record<string, { readonly schema: Schema; readonly validate: Validate }>

export type SchemaName = keyof typeof SCHEMAS

export type Fault = {
  /** Property names from the outside in; empty for the value itself. */
  readonly path: readonly string[]
  /** `undefined` when a required key is missing. */
  readonly value: Json | undefined
  /** Completes "must be …". */
  readonly rule: string
}

/**
 * The first fault of a value whose keys are spelled as in the schema (see `spelled`), or `undefined` when it is valid.
 */
export function check(name: SchemaName, value: Json): Fault | undefined {
  const { schema, validate } = SCHEMAS[name]
  if (validate(value)) return undefined
  const [error] = validate.errors ?? []
  const inside = (error?.instancePath ?? '').split('/').slice(1).map(unescaped)
  const missing = error?.params.missingProperty
  const path = missing === undefined ? inside : [...inside, missing]
  const at = path.reduce<Schema | undefined>((part, step) => part?.properties?.[step], schema)
  const found = path.reduce<Json | undefined>(step, value)
  return { path, value: found, rule: withoutQuotes(at?.description ?? `valid (${error?.keyword})`, found, at?.type) }
}

/** "24" is a number to its author: then the quotes are what is wrong. */
const withoutQuotes = (rule: string, value: Json | undefined, type: string | undefined): string =>
  type === 'integer' && typeof value === 'string' && /^\d+$/.test(value) ? `${rule}, without quotes` : rule

/** JSON Pointer (RFC 6901, section 4). */
const unescaped = (step: string): string => step.replaceAll('~1', '/').replaceAll('~0', '~')

const step = (value: Json | undefined, name: string): Json | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as { readonly [key: string]: Json })[name]
    : undefined

/**
 * The value with known keys spelled as in the schema and without nulls, because Go's decoder matches keys regardless of
 * case and ignores null. Of several spellings the last one counts. Unknown keys are kept.
 */
export function spelled(name: SchemaName, value: Json): Json {
  return spelledAs(SCHEMAS[name].schema, value)
}

function spelledAs(schema: Schema | undefined, value: Json): Json {
  if (schema?.properties === undefined || typeof value !== 'object' || value === null || Array.isArray(value))
    return value
  const known = new Map(Object.keys(schema.properties).map((key) => [key.toLowerCase(), key]))
  const out = new Map<string, Json>()
  for (const [key, inner] of Object.entries(value)) {
    const canonical = known.get(key.toLowerCase())
    if (canonical === undefined) out.set(key, inner)
    else if (inner !== null) out.set(canonical, spelledAs(schema.properties[canonical], inner))
    else out.delete(canonical)
  }
  return Object.fromEntries(out)
}
