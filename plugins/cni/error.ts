// The error object of the CNI specification, which runtimes show to users.
import { newestVersion, type Version } from './version.ts'

/** Codes of the specification 1.1.0 ("Error"), from 100 on our own. */
export const cniCode = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  environment: 4,
  inputOutput: 5,
  decoding: 6,
  configuration: 7,
  namespace: 8,
  tryAgain: 11,
  notAvailable: 50,
  limitedConnectivity: 51,
  internal: 999
} as const

/**
 * `message` names the object and what is wrong; `details` say why, and the cure. Runtimes show both as `message;
 * details`.
 */
export class CniError extends Error {
  readonly code: number
  readonly details: string

  constructor(message: string, about: { readonly code: number; readonly details?: string; readonly cause?: unknown }) {
    super(message, 'cause' in about ? { cause: about.cause } : undefined)
    this.name = 'CniError'
    this.code = about.code
    this.details = about.details ?? ''
  }
}

/** Anything thrown as a CniError; other errors get code 999, as in the reference. */
export function asCniError(thrown: unknown): CniError {
  if (thrown instanceof CniError) return thrown
  if (thrown instanceof Error) return new CniError(thrown.message, { code: cniCode.internal, cause: thrown })
  return new CniError(String(thrown), { code: cniCode.internal })
}

/**
 * The error as one JSON line for standard output; every error of every plugin is printed here. An unknown verb may be a
 * DEL.
 */
export function printError(error: CniError, version: Version = newestVersion, verb?: string): string {
  const worded = verb === undefined || verb === 'DEL' ? rewordForDel : (text: string) => text
  const details = error.details === '' ? {} : { details: worded(error.details) }
  return `${JSON.stringify({ cniVersion: version, code: error.code, msg: worded(error.message), ...details })}\n`
}

/**
 * Phrases that containerd takes for "already deleted": it then drops the error of a DEL that freed nothing (cni.md
 * 2.2).
 */
const swallowed = [
  ['not found', 'missing'],
  ['no such file or directory', 'it does not exist (ENOENT)']
] as const

/**
 * The same text without phrases that containerd swallows, in any letter case. One pass is enough: no phrase begins or
 * ends with part of a replacement.
 */
export function rewordForDel(text: string): string {
  let worded = ''
  for (let at = 0; at < text.length; ) {
    const found = swallowed.find(([phrase]) => occursAt(text, at, phrase))
    worded += found === undefined ? text.charAt(at) : found[1]
    at += found === undefined ? 1 : found[0].length
  }
  return worded
}

/**
 * Letter by letter: the lower case of a text may be longer than the text ("\u0130"), so that indexes would not match.
 */
function occursAt(text: string, at: number, phrase: string): boolean {
  for (let n = 0; n < phrase.length; n++) if (text.charAt(at + n).toLowerCase() !== phrase.charAt(n)) return false
  return true
}
