// Third-party plugins: weftd answers with the program to run, the executable runs it on the host and repeats its
// request with the outcome.
import { CniError, cniCode } from '../../plugins/cni/error.ts'
import { member, shown, text, wholeNumber } from '../../plugins/cni/field.ts'
import type { Call } from '../../plugins/cni/types.ts'
import type { CniRequest, Done, Run } from '../../plugins/protocol.ts'

export type DelegateVerb = 'ADD' | 'CHECK' | 'DEL' | 'GC' | 'STATUS'

/** The delegate's part of the deadline: the rest is for reporting that it took too long. */
const SHARE = 0.8

/**
 * Thrown to end this request; the answer asks for a program to be run. It is not an error: only cniCalls() may catch it
 * without throwing it on.
 */
export class RunRequested extends Error {
  readonly run: Run

  constructor(run: Run) {
    super(`${run.type} is to be run`)
    this.run = run
  }
}

/** The program is in none of the directories. */
export class DelegateMissing extends CniError {}

export type Delegates = {
  /**
   * What the plugin `type` printed for `verb`. Ends the request if it has not been run yet; everything before this call
   * is then repeated, so it must be idempotent. Errors: the plugin's own, unchanged; DelegateMissing; CniError 999 when
   * it could not be run or printed no error.
   */
  run(type: string, verb: DelegateVerb): string
  /** Whether `run` has an outcome, also an error. */
  has(type: string, verb: DelegateVerb): boolean
  /** Runs the plugin's DEL, then throws `error`. */
  undo(type: string, error: CniError): never
  /** The same delegates with another configuration on their standard input. */
  withInput(stdin: string): Delegates
}

/** For GC: the second part is done also after the first has failed. Errors: those of both. */
export async function bothParts<T>(first: () => Promise<void>, second: () => T | Promise<T>): Promise<T> {
  const errors: unknown[] = []
  await first().catch((error) => errors.push(error))
  try {
    const done = await second()
    if (errors.length === 0) return done
  } catch (error) {
    // The same happens again once that program has been run.
    if (error instanceof RunRequested) throw error
    errors.push(error)
  }
  throw errors.length === 1 ? errors[0] : new AggregateError(errors, 'several parts of a GC failed')
}

const UNDO = 'undo '

/** The delegates of one call. Once an ADD has been undone, throws the error that was the reason. */
export function delegatesOf(request: CniRequest, call: Call, input = request.stdin): Delegates {
  const undone = request.did.find(({ id }) => id.startsWith(UNDO))
  if (undone !== undefined) throw rememberedError(undone.id.slice(UNDO.length))
  const path = 'path' in call ? call.path : []
  const runOf = (id: string, type: string, verb: DelegateVerb): Run => ({
    id,
    type,
    path,
    env: { CNI_COMMAND: verb },
    stdin: input,
    deadlineMs: Math.ceil(request.deadlineMs * SHARE)
  })
  return {
    has: (type, verb) => request.did.some(({ id }) => id === `${verb} ${type}`),
    run(type, verb) {
      const id = `${verb} ${type}`
      const done = request.did.find((each) => each.id === id)
      if (done === undefined) throw new RunRequested(runOf(id, type, verb))
      return printed(done, type)
    },
    undo(type, { code, message, details }) {
      throw new RunRequested(runOf(`${UNDO}${JSON.stringify({ code, msg: message, details })}`, type, 'DEL'))
    },
    withInput: (stdin) => delegatesOf(request, call, stdin)
  }
}

function printed(done: Done, type: string): string {
  if (done.kind === 'ended') {
    if (done.exit === 0) return done.stdout
    throw errorPrinted(done.stdout) ?? silent(type, done)
  }
  if (done.reason.startsWith('failed to find plugin'))
    throw new DelegateMissing(done.reason, {
      code: cniCode.configuration,
      details: 'install it in one of these directories, or correct the type in the network configuration'
    })
  throw new CniError(`plugin "${type}" failed: ${done.reason}`, {
    code: cniCode.internal,
    details: 'it is a third-party program named in the network configuration: fix it, or configure another'
  })
}

const silent = (type: string, { exit, stdout, stderr }: Done & { readonly kind: 'ended' }): CniError =>
  new CniError(`plugin "${type}" ended with exit status ${exit} and printed no error`, {
    code: cniCode.internal,
    details: `standard output ${shown(stdout)}, standard error ${shown(stderr)}`
  })

/** The error object that a plugin printed; `undefined` for anything else. */
function errorPrinted(stdout: string): CniError | undefined {
  try {
    const root = { path: '', value: JSON.parse(stdout) as unknown }
    const code = wholeNumber(member(root, 'code'), 0, Number.MAX_SAFE_INTEGER)
    if (code === undefined) return undefined
    return new CniError(text(member(root, 'msg')) ?? '', { code, details: text(member(root, 'details')) ?? '' })
  } catch {
    return undefined
  }
}

/** The error is kept in the delegate's id, so that even a restart of weftd in between does not lose it. */
const rememberedError = (json: string): CniError =>
  errorPrinted(json) ??
  new CniError('an ADD failed and was undone', { code: cniCode.internal, details: "weftd's log says why" })
