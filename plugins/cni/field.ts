// Reads members of foreign JSON: keys case-insensitive as in Go's decoder, errors with path, value and rule.

/** A place in a document, such as `runtimeConfig.ips[0]`, and its value; `undefined` when there is none. */
export type Field = {
  readonly path: string
  readonly value: unknown
  /** The members of a large object by their keys in lower case; member() keeps them here for the next look-up. */
  byLowerCase?: JsonObject
}

export type JsonObject = { readonly [key: string]: unknown }

export class FieldError extends Error {
  readonly path: string
  readonly value: unknown
  readonly rule: string

  constructor(field: Field, rule: string) {
    super(`${field.path === '' ? 'the document' : field.path}: ${shown(field.value)} is wrong: ${rule}`)
    this.name = 'FieldError'
    this.path = field.path
    this.value = field.value
    this.rule = rule
  }
}

/** A value as JSON for messages, cut after 120 characters. */
export function shown(value: unknown): string {
  const text = value === undefined ? 'nothing' : JSON.stringify(value)
  return text.length > 120 ? `${text.slice(0, 117)}...` : text
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * The member of `of` whose key is `key`, else the last whose key is the same in another letter case: Go's decoder takes
 * any case, too (JSON.parse has merged equal spellings already). `null` is absence. Absent parents have absent members;
 * a parent that is no object is an error.
 */
export function member(of: Field, key: string): Field {
  const path = of.path === '' ? key : `${of.path}.${key}`
  if (of.value === undefined || of.value === null) return { path, value: undefined }
  if (!isObject(of.value)) throw new FieldError(of, 'must be an object')
  return { path, value: valueUnder(of, of.value, key) }
}

/**
 * With more members than this, an object's keys are lower-cased once per field instead of once per look-up: there may
 * be many thousands.
 */
const MANY = 64

function valueUnder(of: Field, object: JsonObject, key: string): unknown {
  if (Object.hasOwn(object, key) && object[key] !== null) return object[key]
  const wanted = key.toLowerCase()
  if (of.byLowerCase !== undefined) return of.byLowerCase[wanted]
  const names = Object.keys(object)
  if (names.length <= MANY) {
    // Lengths first: a call looks up some sixty keys among some ten names.
    const isWanted = (name: string) =>
      name.length === wanted.length && object[name] !== null && name.toLowerCase() === wanted
    const name = names.findLast(isWanted)
    return name === undefined ? undefined : object[name]
  }
  // No Map: the executable's engine has none (plugins/host).
  const members: { [key: string]: unknown } = Object.create(null)
  for (const name of names) if (object[name] !== null) members[name.toLowerCase()] = object[name]
  of.byLowerCase = members
  return members[wanted]
}

/** The member reached from `of` by several keys. */
export const descend = (of: Field, ...keys: readonly string[]): Field =>
  keys.reduce((field, key) => member(field, key), of)

export const isAbsent = (field: Field): boolean => field.value === undefined

export function text(field: Field): string | undefined {
  if (field.value === undefined) return undefined
  if (typeof field.value !== 'string') throw new FieldError(field, 'must be a string')
  return field.value
}

export function flag(field: Field): boolean | undefined {
  if (field.value === undefined) return undefined
  if (typeof field.value !== 'boolean') throw new FieldError(field, 'must be true or false')
  return field.value
}

/** A whole number from `least` to `most`, both included. */
export function wholeNumber(field: Field, least: number, most: number): number | undefined {
  if (field.value === undefined) return undefined
  if (typeof field.value !== 'number' || !Number.isInteger(field.value) || field.value < least || field.value > most) {
    throw new FieldError(field, `must be a whole number from ${least} to ${most}`)
  }
  // JSON has -0; adding 0 makes it 0.
  return field.value + 0
}

export function oneOf<const T extends string>(field: Field, allowed: readonly T[]): T | undefined {
  const found = text(field)
  if (found === undefined) return undefined
  const match = allowed.find((each) => each === found)
  if (match === undefined) throw new FieldError(field, `must be one of ${allowed.join(', ')}`)
  return match
}

/** The entries of a list, each with its own path; an absent list has none. */
export function entries(field: Field): readonly Field[] {
  if (field.value === undefined) return []
  if (!Array.isArray(field.value)) throw new FieldError(field, 'must be a list')
  return field.value.map((value: unknown, at) => ({ path: `${field.path}[${at}]`, value }))
}

/** A list of strings; an absent list is empty. */
export const texts = (field: Field): readonly string[] =>
  entries(field).map((entry) => required(text(entry), entry, 'a string'))

/** `value`, or the error that `field` must be `what`. */
export function required<T>(value: T | undefined, field: Field, what: string): T {
  if (value === undefined) throw new FieldError(field, `must be ${what}`)
  return value
}
