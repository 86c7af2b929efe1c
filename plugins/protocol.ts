// Messages on weftd's socket: one JSON line each way, with a version, so that an executable and a daemon of different
// releases report the mismatch.
import {
  entries,
  type Field,
  FieldError,
  isAbsent,
  isObject,
  member,
  required,
  text,
  texts,
  wholeNumber
} from './cni/field.ts'

export const protocolVersion = 1

export const defaultSocketPath = '/run/weft/weftd.sock'

/** Longer lines are refused: the largest configuration that the executable reads, escaped. */
export const longestLineBytes = 24 * 1024 * 1024

type Texts = Readonly<Record<string, string>>

/** Outcome of a delegate that the daemon requested. */
export type Done =
  | {
      readonly kind: 'ended'
      readonly id: string
      readonly exit: number
      readonly stdout: string
      readonly stderr: string
    }
  /** It could not be run, was killed, or did not end in time. */
  | { readonly kind: 'failed'; readonly id: string; readonly reason: string }

/** `reason`: why it can't be read. */
export type FileOnHost = { readonly text: string } | { readonly reason: string }

/** One CNI call, as the runtime made it. */
export type CniRequest = {
  readonly v: typeof protocolVersion
  /** The name under which the executable was called. */
  readonly plugin: string
  /** Every CNI_ variable, and TRACEPARENT for the log. */
  readonly env: Texts
  /**
   * The executable's network namespace as the kernel names it, `net:[4026531840]`. Absent from older executables, and
   * where /proc can't be read.
   */
  readonly namespace?: string
  /** The executable's root directory, `dev:ino`: weftd in a container has another one. */
  readonly root?: string
  /** The file that `ipam.resolvConf` of an ADD names, as the executable finds it on the host. */
  readonly resolvConf?: FileOnHost
  /** Standard input, unchanged. */
  readonly stdin: string
  /** How long the executable waits for the answer to this line: after that the daemon need not go on. */
  readonly deadlineMs: number
  /** Outcomes of what the daemon requested in earlier answers to this call, in order. */
  readonly did: readonly Done[]
}

/** A query of weftctl. */
export type ControlRequest = {
  readonly v: typeof protocolVersion
  readonly ctl: string
  readonly args: readonly string[]
}

export type Request = CniRequest | ControlRequest

/** A program to be run by the executable, which is in the host's mount namespace; the daemon may be in a container. */
export type Run = {
  readonly id: string
  /** File name, searched for in the directories of `path` in order. */
  readonly type: string
  readonly path: readonly string[]
  /** Overrides variables of the executable's environment. */
  readonly env: Texts
  readonly stdin: string
  readonly deadlineMs: number
}

export type Finished = {
  readonly v: typeof protocolVersion
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
}
export type Reply = Finished | { readonly v: typeof protocolVersion; readonly run: Run }

export type ControlReply =
  | { readonly v: typeof protocolVersion; readonly answer: unknown }
  | {
      readonly v: typeof protocolVersion
      readonly error: { readonly code: string; readonly message: string; readonly cure: string }
    }

/** The message names the request or answer, the member and the rule. */
export class ProtocolError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'ProtocolError'
  }
}

/** Whether a variable is sent with a call: CNI's own, and TRACEPARENT, malformed or not. */
export const isSent = (variable: string): boolean => variable.startsWith('CNI_') || variable === 'TRACEPARENT'

/** A request's line, parsed; throws ProtocolError. */
export const parseRequest = (line: string): Request =>
  parse('the request', line, (root) => (isAbsent(member(root, 'ctl')) ? cniRequest(root) : controlRequest(root)))

/** The answer to a CniRequest; throws ProtocolError. */
export const parseReply = (line: string): Reply =>
  parse('the answer', line, (root) => {
    const run = member(root, 'run')
    if (!isAbsent(run)) return { v: protocolVersion, run: runRequest(run) }
    return {
      v: protocolVersion,
      exit: must(wholeNumber, member(root, 'exit'), 0, 255),
      stdout: text(member(root, 'stdout')) ?? '',
      stderr: text(member(root, 'stderr')) ?? ''
    }
  })

/** The answer to a ControlRequest; throws ProtocolError. */
export const parseControlReply = (line: string): ControlReply =>
  parse('the answer', line, (root) => {
    const error = member(root, 'error')
    if (isAbsent(error)) return { v: protocolVersion, answer: member(root, 'answer').value ?? null }
    const [code, message, cure] = ['code', 'message', 'cure'].map((key) => text(member(error, key)) ?? '')
    return { v: protocolVersion, error: { code: code ?? '', message: message ?? '', cure: cure ?? '' } }
  })

function parse<T>(what: string, line: string, read: (root: Field) => T): T {
  try {
    const root: Field = { path: '', value: JSON.parse(line) }
    const version = wholeNumber(member(root, 'v'), 1, Number.MAX_SAFE_INTEGER)
    if (version !== protocolVersion)
      throw new FieldError(member(root, 'v'), `must be ${protocolVersion}; upgrade the older of the plugin and weftd`)
    return read(root)
  } catch (cause) {
    if (!(cause instanceof FieldError || cause instanceof SyntaxError)) throw cause
    throw new ProtocolError(`${what} is not understood: ${cause.message}`, { cause })
  }
}

function cniRequest(root: Field): CniRequest {
  const [namespace, directory] = ['namespace', 'root'].map((key) => text(member(root, key)))
  const file = member(root, 'resolvConf')
  return {
    ...(namespace === undefined ? {} : { namespace }),
    ...(directory === undefined ? {} : { root: directory }),
    ...(isAbsent(file) ? {} : { resolvConf: fileOnHost(file) }),
    v: protocolVersion,
    plugin: must(text, member(root, 'plugin')),
    env: textMembers(member(root, 'env')),
    stdin: must(text, member(root, 'stdin')),
    deadlineMs: must(wholeNumber, member(root, 'deadlineMs'), 0, Number.MAX_SAFE_INTEGER),
    did: entries(member(root, 'did')).map(done)
  }
}

function fileOnHost(field: Field): FileOnHost {
  const reason = text(member(field, 'reason'))
  return reason === undefined ? { text: must(text, member(field, 'text')) } : { reason }
}

const controlRequest = (root: Field): ControlRequest => ({
  v: protocolVersion,
  ctl: must(text, member(root, 'ctl')),
  args: texts(member(root, 'args'))
})

function done(field: Field): Done {
  const id = must(text, member(field, 'id'))
  const failed = member(field, 'reason')
  if (!isAbsent(failed)) return { kind: 'failed', id, reason: must(text, failed) }
  return {
    kind: 'ended',
    id,
    exit: must(wholeNumber, member(field, 'exit'), 0, 255),
    stdout: must(text, member(field, 'stdout')),
    stderr: must(text, member(field, 'stderr'))
  }
}

function runRequest(field: Field): Run {
  const type = must(text, member(field, 'type'))
  if (type === '' || type.includes('/')) throw new FieldError(member(field, 'type'), 'must be a file name')
  return {
    id: must(text, member(field, 'id')),
    type,
    path: texts(member(field, 'path')),
    env: textMembers(member(field, 'env')),
    stdin: must(text, member(field, 'stdin')),
    deadlineMs: must(wholeNumber, member(field, 'deadlineMs'), 1, Number.MAX_SAFE_INTEGER)
  }
}

/** The value that `read` finds; its absence is an error. */
function must<T, Bounds extends readonly number[]>(
  read: (field: Field, ...bounds: Bounds) => T | undefined,
  field: Field,
  ...bounds: Bounds
): T {
  return required(read(field, ...bounds), field, 'given')
}

/** An object of strings. Its keys are names of variables: case-sensitive. */
function textMembers(field: Field): Texts {
  if (!isObject(field.value)) throw new FieldError(field, 'must be an object')
  return Object.fromEntries(
    Object.entries(field.value).map(([name, value]) => [name, must(text, { path: `${field.path}.${name}`, value })])
  )
}
