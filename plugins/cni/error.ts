// The error object of the CNI specification: what the runtime shows to whoever waits for the pod.
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

/** `message` names the object and what is wrong; `details` say why and what helps. Runtimes show both as `message; details`. */
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

/** Anything thrown, as a CniError: what is none yet gets code 999, the reference's for everything untyped. */
export function asCniError(thrown: unknown): CniError {
  if (thrown instanceof CniError) return thrown
  if (thrown instanceof Error) return new CniError(thrown.message, { code: cniCode.internal, cause: thrown })
  return new CniError(String(thrown), { code: cniCode.internal })
}

/** The error as one JSON line for standard output. Every error of every plugin passes here. A verb that is not known may be a DEL. */
export function printError(error: CniError, version: Version = newestVersion, verb?: string): string {
  const say = verb === undefined || verb === 'DEL' ? sayForDel : (text: string) => text
  const details = error.details === '' ? {} : { details: say(error.details) }
  return `${JSON.stringify({ cniVersion: version, code: error.code, msg: say(error.message), ...details })}\n`
}

/** What containerd takes for "already deleted", and then drops the error of a DEL that did not free its things (cni.md 2.2). */
const swallowed = [
  ['not found', 'missing'],
  ['no such file or directory', 'it does not exist (ENOENT)']
] as const

/** The same text in words that containerd does not swallow, in whatever letter case. One pass will do: no phrase begins or ends with part of a replacement. */
export function sayForDel(text: string): string {
  let said = ''
  for (let at = 0; at < text.length; ) {
    const found = swallowed.find(([phrase]) => standsAt(text, at, phrase))
    said += found === undefined ? text.charAt(at) : found[1]
    at += found === undefined ? 1 : found[0].length
  }
  return said
}

/** Letter by letter: the lower case of a whole text may be longer than the text ("\u0130"), and an index in the one is none in the other. */
function standsAt(text: string, at: number, phrase: string): boolean {
  for (let n = 0; n < phrase.length; n++) if (text.charAt(at + n).toLowerCase() !== phrase.charAt(n)) return false
  return true
}
