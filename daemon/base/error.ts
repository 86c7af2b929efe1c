// The errors Weft itself raises: a code for machines, a cure for people, and a message that is whole without its cause.

/**
 * An error that a user will read. `message` says what was tried, on what (the value and its place) and why it failed; `cure` says what to do.
 * `code` is one of the upper-case words of docs/errors.md.
 */
export class WeftError extends Error {
  readonly code: string
  readonly cure: string

  constructor(code: string, message: string, cure: string, options?: { readonly cause?: unknown }) {
    super(message, options)
    this.name = 'WeftError'
    this.code = code
    this.cure = cure
  }
}

/** The text of whatever was thrown, with the texts of its causes where they add something. */
export function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown)
  const cause = thrown.cause === undefined ? '' : reasonOf(thrown.cause)
  return cause === '' || thrown.message.includes(cause) ? thrown.message : `${thrown.message}: ${cause}`
}
