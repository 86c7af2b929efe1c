// Errors that Weft itself raises: a code for programs, a message that is complete without its cause, and a cure.

import { printable } from './printable.ts'

/**
 * An error shown to users. `message` names the operation, the object (a value and its place) and the reason; `cure`
 * names the action; both are one printable line, whatever they quote. `code` is one of docs/errors.md.
 */
export class WeftError extends Error {
  readonly code: string
  readonly cure: string

  constructor(code: string, message: string, cure: string, options?: { readonly cause?: unknown }) {
    super(printable(message), options)
    this.name = 'WeftError'
    this.code = code
    this.cure = printable(cure)
  }
}

/** Anything thrown as an Error. */
export const toError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)))

/** The message of anything thrown, followed by those of its causes unless it contains them. */
export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown)
  const cause = thrown.cause === undefined ? '' : reasonOf(thrown.cause)
  return cause === '' || thrown.message.includes(cause) ? thrown.message : `${thrown.message}: ${cause}`
}
