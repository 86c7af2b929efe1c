// One CNI call, from the bytes that the executable forwarded to the bytes that it prints: the verb's dispatch, and the one place where CNI errors are made.

import type { Attachment } from '../../plugins/attachment.ts'
import { readCall, readEnvironment, versionForError } from '../../plugins/call.ts'
import { CniError, cniCode, printError } from '../../plugins/cni/error.ts'
import { shown } from '../../plugins/cni/field.ts'
import { parseDelegateResult, previousResult, printResult } from '../../plugins/cni/result.ts'
import type { AttachmentCall, Call, NetworkCall, Result } from '../../plugins/cni/types.ts'
import { isAtLeast, newestVersion, supportedVersions, type Verb } from '../../plugins/cni/version.ts'
import type { CniRequest, Finished, Reply } from '../../plugins/protocol.ts'
import type { Plugin } from '../../plugins/types/plugin.ts'
import { forwardingPluginNamed, pluginNamed, pluginTypes } from '../../plugins/types/registry.ts'
import { addressesOf } from '../attachment/result.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { CONDITIONS, type ConditionCode, withCure } from '../health/conditions.ts'
import type { PodContext } from '../pod/context.ts'
import { timed } from '../pod/timing.ts'
import type { CallHistory } from './call-history.ts'
import { DelegateMissing, type Delegates, delegatesOf, RunWanted } from './delegates.ts'
import { type ConfiguredCall, forwarded, type Printed } from './flannel-forwarding.ts'
import { fromCni, ipamResultFrom } from './result.ts'
import { validAttachments } from './valid-attachments.ts'
import { verbsOf } from './verbs.ts'

/** What a code of ours is in CNI's numbers (specification 1.1.0, "Error"; from 100 on our own). Conditions are transient: 11. */
const numbers: Readonly<Record<string, number>> = {
  ...Object.fromEntries(Object.keys(CONDITIONS).map((code) => [code, cniCode.tryAgain])),
  CONTAINER_UNKNOWN: cniCode.unknownContainer,
  INTERFACE_DOWN: cniCode.tryAgain,
  LOCK_HELD: cniCode.tryAgain,
  OVERLOADED: cniCode.tryAgain,
  STOPPING: cniCode.tryAgain,
  SANDBOX_GONE: cniCode.namespace,
  SANDBOX_INVALID: cniCode.namespace,
  RANGE_INVALID: cniCode.configuration,
  PREVIOUS_MISSING: cniCode.configuration,
  SYSCTL_NOT_ALLOWED: cniCode.configuration,
  GATEWAY_MISSING: cniCode.configuration,
  SUBNET_FILE_UNREADABLE: cniCode.tryAgain,
  SUBNET_ENV_INVALID: cniCode.configuration,
  RESOLV_CONF_UNREADABLE: cniCode.configuration,
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
  ADDRESS_MISSING: 109
}

/** Conditions in which pods that run already may be cut off from those of other nodes: STATUS says so by 51. */
const limiting: readonly string[] = ['LEASE_LOST', 'NO_INTERFACE'] satisfies readonly ConditionCode[]

/** STATUS has numbers of its own for "ADD would fail now". */
function statusNumber(code: string, number: number): number {
  if (number !== cniCode.tryAgain) return number
  return limiting.includes(code) ? cniCode.limitedConnectivity : cniCode.notAvailable
}

/** Anything thrown, as the runtime gets it: the sentence with its cure in `msg`, what caused it in `details`. */
export function cniError(thrown: unknown, verb?: Verb): CniError {
  if (thrown instanceof CniError) return thrown
  if (thrown instanceof AggregateError && thrown.errors.length > 0)
    return together(
      thrown.errors.map((each) => cniError(each, verb)),
      thrown
    )
  if (!(thrown instanceof WeftError)) return unexpected(thrown)
  const number = numbers[thrown.code] ?? cniCode.internal
  const code = verb === 'STATUS' ? statusNumber(thrown.code, number) : number
  const cause = thrown.cause === undefined ? '' : reasonOf(thrown.cause)
  const details = thrown.message.includes(cause) ? '' : cause
  return new CniError(withCure(thrown.message, thrown.cure), { code, details, cause: thrown })
}

/** Several failures of one DEL or GC, each with its cure; under their number where they have the same. */
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
      'weftd did not expect that. If nothing of this host explains it, it is a fault of weftd: report it with its log.',
    cause: thrown
  })

/** The answer that makes the executable print this error and fail. */
export const failed = (error: CniError, request?: Pick<CniRequest, 'stdin' | 'env'>): Finished => {
  const stdout = printError(error, versionForError(request?.stdin ?? ''), request?.env.CNI_COMMAND)
  return { v: 1, exit: 1, stdout, stderr: '' }
}

/** Serves calls, and remembers what became of them. Never rejects: what goes wrong is the answer, and one line of the log. */
export function cniCalls(
  context: PodContext,
  outcomes: Pick<CallHistory, 'record'>
): (request: CniRequest) => Promise<Reply> {
  return async (request) => {
    const begun = context.now()
    let call: Call | undefined
    const remember = (failure: CniError | undefined) =>
      outcomes.record(request, call, (context.now() - begun) / 1000, failure)
    try {
      call = readCall(request.plugin, readEnvironment(request.env), request.stdin)
      const known = call
      const printed = await timed(context, call.verb, 'total', () => serve(context, known, request))
      tellTraced(context, request)
      remember(undefined)
      return { v: 1, exit: 0, stdout: '', stderr: '', ...printed }
    } catch (thrown) {
      if (thrown instanceof RunWanted) return { v: 1, run: thrown.run }
      const error = cniError(thrown, call?.verb)
      const { CNI_COMMAND: verb, CNI_CONTAINERID: container, CNI_IFNAME: ifname } = request.env
      context.log.warn(
        { verb, plugin: request.plugin, container, ifname, ...traceOf(request), code: error.code, err: thrown },
        'a CNI call failed'
      )
      remember(error)
      return failed(error, request)
    }
  }
}

/** Where a caller keeps a trace, our lines carry it, so that the two can be laid side by side (https://www.w3.org/TR/trace-context/). */
function traceOf({ env }: CniRequest): Readonly<Record<string, string>> {
  const told = { traceparent: env.TRACEPARENT, tracestate: env.TRACESTATE, baggage: env.BAGGAGE }
  return Object.fromEntries(
    Object.entries(told).flatMap(([name, value]) => (value ? [[name, value.slice(0, LONGEST_TRACE)]] : []))
  )
}

/** What the specifications of these headers ask everybody to keep at least. Malformed or endless ones must not fill the log. */
const LONGEST_TRACE = 512

/** A call that succeeds leaves lines of what it changed only; one that is traced is told itself. */
function tellTraced({ log }: PodContext, request: CniRequest): void {
  const trace = traceOf(request)
  if (Object.keys(trace).length === 0) return
  const { CNI_COMMAND: verb, CNI_CONTAINERID: container, CNI_IFNAME: ifname } = request.env
  log.info({ verb, plugin: request.plugin, container, ifname, ...trace }, 'a traced CNI call was served')
}

/** What goes to standard output, and to standard error. */
async function serve(context: PodContext, call: Call, request: CniRequest): Promise<Printed> {
  if (call.verb === 'VERSION')
    return { stdout: `${JSON.stringify({ cniVersion: newestVersion, supportedVersions })}\n` }
  const delegates = delegatesOf(request, call)
  const served = serveByPlugin(context, call, delegates)
  if (served !== undefined) return served
  const plugin = forwardingPluginNamed(call.plugin)
  if (plugin !== undefined)
    return forwarded(plugin, call, delegates, (next, others) => serveByPlugin(context, next, others))
  throw new CniError(`weftd does not know the plugin type "${call.plugin}"`, {
    code: cniCode.configuration,
    details: `it serves ${pluginTypes.join(', ')}; the executable may be newer than weftd`
  })
}

/** `undefined`: no plugin of that name makes anything itself. */
function serveByPlugin(context: PodContext, call: ConfiguredCall, delegates: Delegates): Promise<Printed> | undefined {
  const plugin = pluginNamed(call.plugin)
  if (plugin === undefined) return undefined
  return 'containerId' in call
    ? serveAttachment(context, plugin.attachment(call), call, delegates)
    : serveNetwork(context, patternOf(plugin, call), call, delegates)
}

async function serveAttachment(
  context: PodContext,
  attachment: Attachment,
  call: AttachmentCall,
  delegates: Delegates
): Promise<Printed> {
  const previous = call.verb === 'DEL' ? undefined : previousResult(call)
  const { delegate } = attachment
  switch (call.verb) {
    case 'ADD': {
      refuseSecondOfFamily(attachment, call)
      const result =
        delegate === undefined
          ? await verbsOf(context, attachment).add(previous)
          : await addWithDelegate(context, attachment, delegate, call, delegates)
      return { stdout: printResult(call.version, result) }
    }
    case 'CHECK': {
      if (delegate !== undefined) delegates.run(delegate, 'CHECK')
      const checked =
        delegate === undefined || previous === undefined ? attachment : withAddresses(attachment, previous)
      await verbsOf(context, checked).check(previous)
      return {}
    }
    case 'DEL': {
      await verbsOf(context, attachment).del()
      return delegate === undefined ? {} : runUnlessMissing(context, delegates, delegate, 'DEL')
    }
  }
}

/** CHECK has the addresses of a third party's plugin from the result of the ADD. */
function withAddresses(attachment: Attachment, previous: Result): Attachment {
  const result = fromCni(previous)
  const { routes, dns } = result
  return { ...attachment, ipamResult: { addresses: addressesOf(result, attachment.ifname), routes, dns } }
}

/** A third party's plugin gives the addresses; should anything fail after it, it gets them back before the error is told. */
async function addWithDelegate(
  context: PodContext,
  attachment: Attachment,
  delegate: string,
  call: AttachmentCall,
  delegates: Delegates
): Promise<Result> {
  const { prepare, del } = verbsOf(context, attachment)
  if (!delegates.has(delegate, 'ADD')) await prepare?.()
  let output: string
  try {
    output = delegates.run(delegate, 'ADD')
  } catch (thrown) {
    if (prepare !== undefined && !(thrown instanceof RunWanted)) await del()
    throw thrown
  }
  try {
    const answer = parseDelegateResult(output, delegate, call.version)
    if (answer.ips.length === 0) {
      throw new CniError(`IPAM plugin "${delegate}" returned no address`, {
        code: cniCode.internal,
        details: `it printed ${shown(output)}`
      })
    }
    return await verbsOf(context, { ...attachment, ipamResult: ipamResultFrom(answer) }).add(undefined)
  } catch (thrown) {
    if (prepare !== undefined) await del()
    return delegates.undo(delegate, cniError(thrown))
  }
}

/** A program that is no longer installed can free nothing, and a DEL that always fails would keep the container for ever. */
function runUnlessMissing(context: PodContext, delegates: Delegates, type: string, verb: 'DEL' | 'GC'): Printed {
  try {
    delegates.run(type, verb)
    return {}
  } catch (thrown) {
    if (!(thrown instanceof DelegateMissing)) throw thrown
    context.log.warn(
      { verb, delegate: type, err: thrown },
      'what an IPAM plugin keeps was not freed: it is not installed'
    )
    return { stderr: `${thrown.message}; what it keeps was not freed\n` }
  }
}

/** Before 0.3.0 a result has room for one address per family: what could not be told is not reserved. */
function refuseSecondOfFamily(attachment: Attachment, call: AttachmentCall): void {
  if (isAtLeast(call.version, '0.3.0')) return
  const families = (attachment.ipam?.ranges ?? []).flatMap((set) => set[0]?.subnet.ip.family ?? [])
  if (new Set(families).size === families.length) return
  throw new CniError(`cniVersion ${call.version} allows one address per family`, {
    code: cniCode.incompatibleVersion,
    details: 'use cniVersion 0.3.0 or later for several range sets of one family'
  })
}

async function serveNetwork(
  context: PodContext,
  pattern: Attachment,
  call: NetworkCall,
  delegates: Delegates
): Promise<Printed> {
  const { delegate } = pattern
  if (call.verb === 'STATUS') {
    await verbsOf(context, pattern).status()
    if (delegate !== undefined) delegates.run(delegate, 'STATUS')
    return {}
  }
  await verbsOf(context, pattern).gc(validAttachments(call))
  return delegate === undefined ? {} : runUnlessMissing(context, delegates, delegate, 'GC')
}

/** What these verbs need of the configuration (data directory, ranges) is what any attachment of the network has. */
function patternOf(plugin: Plugin, call: NetworkCall): Attachment {
  const any = { ...call, containerId: 'any', ifname: 'any' }
  return plugin.attachment(call.verb === 'GC' ? { ...any, verb: 'DEL' } : { ...any, verb: 'CHECK', netns: '' })
}
