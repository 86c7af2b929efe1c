// The versions of the CNI specification in order, and the verbs of each (specification 1.1.0, "Versions" and
// "Operations").

/** Every version that Weft supports, in order of release. */
export const supportedVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const

export type Version = (typeof supportedVersions)[number]

export const newestVersion: Version = '1.1.0'

/** What an absent or empty `cniVersion` means: the key came with 0.2.0. */
export const versionWhenAbsent: Version = '0.1.0'

export const verbs = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION'] as const

export type Verb = (typeof verbs)[number]

const since: Readonly<Partial<Record<Verb, readonly number[]>>> = {
  CHECK: [0, 4, 0],
  GC: [1, 1, 0],
  STATUS: [1, 1, 0]
}

/** Versions match by exact text: `1.1` and `01.1.0` are not supported. */
export const isSupported = (text: string): text is Version => (supportedVersions as readonly string[]).includes(text)

/** Negative, zero or positive as `a` is older than, the same as, or newer than `b`. */
export const compareVersions = (a: Version, b: Version): number =>
  supportedVersions.indexOf(a) - supportedVersions.indexOf(b)

export const isAtLeast = (version: Version, least: Version): boolean => compareVersions(version, least) >= 0

/** The three numbers of `a.b.c`; `undefined` for any other text. */
export function versionNumbers(text: string): readonly number[] | undefined {
  const parts = text.split('.')
  if (parts.length !== 3 || !parts.every(isNumber)) return undefined
  return parts.map(Number)
}

/** Without RegExp, which the executable's engine lacks for a quicker start. */
const isNumber = (text: string): boolean =>
  text.length > 0 && text.length < 10 && Array.from(text).every((digit) => digit >= '0' && digit <= '9')

/**
 * Whether `verb` exists in the version `text`, supported or not; `undefined` if the text is no version and the verb
 * depends on it.
 */
export function allowsVerb(text: string, verb: Verb): boolean | undefined {
  const first = since[verb]
  if (first === undefined) return true
  const numbers = versionNumbers(text)
  if (numbers === undefined) return undefined
  for (const [at, least] of first.entries()) {
    const number = numbers[at] ?? 0
    if (number !== least) return number > least
  }
  return true
}
