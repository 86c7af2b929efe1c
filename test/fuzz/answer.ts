// What a well-formed answer of a CNI plugin is, by the specification: one JSON object and the right exit status.
import assert from 'node:assert/strict'

export type Answered = { readonly exit: number | null; readonly stdout: string }

/** Codes of the specification and the reference, and from 100 on our own. */
const RESERVED = new Set([1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51])

/** An error object as the one line of standard output; returns it. */
export function checkError(stdout: string, verb: string | undefined): { readonly code: number; readonly msg: string } {
  assert.ok(
    stdout.endsWith('}\n') && stdout.indexOf('\n') === stdout.length - 1,
    `not one line: ${stdout.slice(0, 300)}`
  )
  const error = JSON.parse(stdout) as { cniVersion?: unknown; code?: unknown; msg?: unknown; details?: unknown }
  const { cniVersion, code, msg, details = '' } = error
  assert.match(String(cniVersion), /^\d\.\d\.\d$/)
  assert.ok(
    typeof code === 'number' && Number.isInteger(code) && (RESERVED.has(code) || code >= 100),
    `code ${code}: ${stdout.slice(0, 300)}`
  )
  assert.ok(typeof msg === 'string' && msg !== '' && typeof details === 'string', stdout.slice(0, 300))
  assert.ok(details !== '' || msg.includes('Cure: '), `nothing is said of what to do: ${stdout.slice(0, 300)}`)
  // The words of a fault of ours, which no input may bring about; that a document nests too deeply to be decoded is
  // none.
  if (code !== 6) assert.doesNotMatch(`${msg} ${details}`, /Maximum call stack/, stdout.slice(0, 300))
  assert.doesNotMatch(
    `${msg} ${details}`,
    /is not a function|Cannot (read|convert)|is not iterable|undefined \(|is not an object|\[object Object\]/,
    stdout.slice(0, 300)
  )
  if (verb === 'DEL') assert.doesNotMatch(`${msg} ${details}`, /not found|no such file or directory/i)
  return { code, msg }
}

/** Exit 0 with the verb's own output (`any`: which verb it was is not known), or 1 with an error object. */
export function checkAnswer({ exit, stdout }: Answered, verb: string | undefined | 'any'): void {
  if (exit !== 0) {
    assert.equal(exit, 1)
    checkError(stdout, verb)
  } else if (verb === 'ADD' || verb === 'VERSION' || (verb === 'any' && stdout !== '')) {
    const result = JSON.parse(stdout) as { cniVersion?: unknown }
    assert.match(String(result.cniVersion), /^\d\.\d\.\d$/)
  } else assert.equal(stdout, '')
}
