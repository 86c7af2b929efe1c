// Errors as the runtime gets them: the table from our codes to CNI's numbers, and the CNI error made of anything
// thrown.
import { codeOf } from '../../ipam/files.ts'
import { isForGood } from '../../ipam/read-file.ts'
import { ReservationsUnusable } from '../../ipam/unusable.ts'
import { versionForError } from '../../plugins/call.ts'
import { CniError, cniCode, printError } from '../../plugins/cni/error.ts'
import type { Verb } from '../../plugins/cni/version.ts'
import type { CniRequest, Finished, ProtocolError } from '../../plugins/protocol.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { printableJson } from '../base/printable.ts'
import { CONDITIONS, type ConditionCode, withCure } from '../health/conditions.ts'

/** CNI's numbers by our codes (specification 1.1.0, "Error"; from 100 on our own). Conditions are transient: 11. */
const numbers: Readonly<Record<string, number>> = {
  ...Object.fromEntries(Object.keys(CONDITIONS).map((code) => [code, cniCode.tryAgain])),
  CONTAINER_UNKNOWN: cniCode.unknownContainer,
  INTERFACE_DOWN: cniCode.tryAgain,
  LOCK_HELD: cniCode.tryAgain,
  OVERLOADED: cniCode.tryAgain,
  STOPPING: cniCode.tryAgain,
  DATA_DIR_UNREACHABLE: cniCode.configuration,
  NAMESPACE_OTHER: cniCode.namespace,
  SANDBOX_GONE: cniCode.namespace,
  SANDBOX_INVALID: cniCode.namespace,
  RANGE_INVALID: cniCode.configuration,
  PREVIOUS_MISSING: cniCode.configuration,
  SYSCTL_NOT_ALLOWED: cniCode.configuration,
  GATEWAY_MISSING: cniCode.configuration,
  SUBNET_FILE_UNREADABLE: cniCode.tryAgain,
  SUBNET_ENV_INVALID: cniCode.configuration,
  RESOLV_CONF_UNREADABLE: cniCode.configuration,
  KERNEL_FEATURE_MISSING: cniCode.unsupportedField,
  KERNEL_REFUSED: 100,
  BRIDGE_INVALID: 101,
  INTERFACE_EXISTS: 102,
  ADDRESS_HELD: 103,
  ADDRESS_REFUSED: 104,
  LOOPBACK_FOREIGN: 105,
  DIFFERENT: 106,
  INTERFACE_MISSING: 107,
  MASTER_INVALID: cniCode.configuration,
  MTU_INVALID: cniCode.configuration,
  PORT_TAKEN: 108,
  ADDRESS_MISSING: 109,
  WANTED_OTHERWISE: 110
}

/**
 * Files of administrators: the number depends on why one can't be read. One that is not there yet (ENOENT) has that of
 * its code.
 */
const ofFiles: ReadonlySet<string> = new Set(['RESOLV_CONF_UNREADABLE', 'SUBNET_FILE_UNREADABLE', 'SYSCTL_NOT_ALLOWED'])

function numberOf({ code, cause }: WeftError): number {
  const usual = numbers[code] ?? cniCode.internal
  const reason = ofFiles.has(code) ? codeOf(cause) : undefined
  if (reason === undefined || reason === 'ENOENT') return usual
  return isForGood(cause) ? cniCode.configuration : cniCode.tryAgain
}

/** Conditions in which running pods may not reach those of other nodes: STATUS returns 51. */
const limiting: readonly string[] = ['LEASE_LOST', 'NO_INTERFACE'] satisfies readonly ConditionCode[]

/** STATUS has its own numbers for "ADD would fail now". */
function statusNumber(code: string, number: number): number {
  if (number !== cniCode.tryAgain) return number
  return limiting.includes(code) ? cniCode.limitedConnectivity : cniCode.notAvailable
}

/** Anything thrown, as the runtime gets it: the sentence with its cure in `msg`, the cause in `details`. */
export function cniError(thrown: unknown, verb?: Verb): CniError {
  if (thrown instanceof CniError) return thrown
  if (thrown instanceof AggregateError && thrown.errors.length > 0)
    return together(
      thrown.errors.map((each) => cniError(each, verb)),
      thrown
    )
  if (thrown instanceof ReservationsUnusable) return cniError(unwritable(thrown), verb)
  if (!(thrown instanceof WeftError)) return unexpected(thrown)
  const number = numberOf(thrown)
  const code = verb === 'STATUS' ? statusNumber(thrown.code, number) : number
  const cause = thrown.cause === undefined ? '' : reasonOf(thrown.cause)
  const details = thrown.message.includes(cause) ? '' : cause
  return new CniError(withCure(thrown.message, thrown.cure), { code, details, cause: thrown })
}

const unwritable = (error: ReservationsUnusable): WeftError =>
  new WeftError(
    'STATE_UNWRITABLE',
    `${CONDITIONS.STATE_UNWRITABLE.title}: ${error.message}`,
    `make ${error.directory} readable and writable for root, or free space there`,
    { cause: error }
  )

/** Several failures of one DEL or GC, each with its cure; with their number if all have the same. */
function together(errors: readonly CniError[], cause: AggregateError): CniError {
  const codes = new Set(errors.map(({ code }) => code))
  const joined = (texts: readonly string[]) => [...new Set(texts)].filter((text) => text !== '').join('; ')
  return new CniError(joined(errors.map(({ message }) => message)), {
    code: codes.size === 1 ? (errors[0]?.code ?? cniCode.internal) : cniCode.internal,
    details: joined(errors.map(({ details }) => details)),
    cause
  })
}

const unexpected = (thrown: unknown): CniError =>
  new CniError(reasonOf(thrown), {
    code: cniCode.internal,
    details:
      'weftd did not expect this error. If nothing on this host explains it, report it as a bug with the log of weftd.',
    cause: thrown
  })

/** The answer that makes the executable print this error and fail. */
export const failed = (error: CniError, request?: Pick<CniRequest, 'stdin' | 'env'>): Finished => {
  const printed = printError(error, versionForError(request?.stdin ?? ''), request?.env.CNI_COMMAND)
  return { v: 1, exit: 1, stdout: printableJson(printed), stderr: '' }
}

/** The answer to a line that is not a request. */
export const malformed = ({ message }: ProtocolError, cure: string): Finished =>
  failed(new CniError(message, { code: cniCode.decoding, details: cure }))

/** The answer to a call that weftd can't finish before its caller's deadline. */
export const overloaded = (request: CniRequest, running: number, waiting: number): Finished =>
  refusal(
    request,
    new WeftError(
      'OVERLOADED',
      `weftd could not finish ${request.env.CNI_COMMAND} for container ${request.env.CNI_CONTAINERID} within ${request.deadlineMs} ms: ${running} calls are running and ${waiting} wait`,
      'the runtime tries again; if this lasts, find in the log of weftd what it waits for'
    )
  )

/** The answer to a call that has not begun when weftd stops. */
export const stopping = (request: CniRequest): Finished =>
  refusal(
    request,
    new WeftError('STOPPING', 'weftd is stopping', 'no action needed while weftd restarts: the runtime tries again')
  )

/** The answer to a call that threw. */
export const failure = (request: CniRequest, thrown: unknown): Finished =>
  refusal(
    request,
    new WeftError('INTERNAL', `weftd failed: ${reasonOf(thrown)}`, 'report this as a bug of weftd, with its log', {
      cause: thrown
    })
  )

const refusal = (request: CniRequest, error: WeftError): Finished => failed(cniError(error), request)
