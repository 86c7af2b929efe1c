// Serves a CNI call that the executable forwarded: reads it, runs its verb, and returns what the executable is to
// print.
import type { Attachment } from '../../plugins/attachment.ts'
import { readCall, readEnvironment } from '../../plugins/call.ts'
import { CniError, cniCode } from '../../plugins/cni/error.ts'
import { shown } from '../../plugins/cni/field.ts'
import { parseDelegateResult, previousResult, printResult } from '../../plugins/cni/result.ts'
import type { AttachmentCall, Call, NetworkCall, Result } from '../../plugins/cni/types.ts'
import { isAtLeast, newestVersion, supportedVersions } from '../../plugins/cni/version.ts'
import type { CniRequest, Reply } from '../../plugins/protocol.ts'
import type { Plugin } from '../../plugins/types/plugin.ts'
import { forwardingPluginNamed, pluginNamed, pluginTypes } from '../../plugins/types/registry.ts'
import { addressesOf } from '../attachment/result.ts'
import { printable } from '../base/printable.ts'
import type { PodContext } from '../pod/context.ts'
import { refuseOtherSandbox } from '../pod/other-sandbox.ts'
import { timed } from '../pod/timing.ts'
import type { CallHistory } from './call-history.ts'
import { bothParts, DelegateMissing, type Delegates, delegatesOf, RunRequested } from './delegates.ts'
import { cniError, failed } from './error-codes.ts'
import { type ConfiguredCall, forwarded, type Printed } from './flannel-forwarding.ts'
import { withHostFiles } from './host-files.ts'
import { answerElsewhere } from './other-namespace.ts'
import { fromCni, ipamResultFrom } from './result.ts'
import { validAttachments } from './valid-attachments.ts'
import { verbsOf } from './verbs.ts'

/** Serves calls and records their outcome. Never rejects: a failure is the answer, and one line of the log. */
export function cniCalls(
  context: PodContext,
  history: Pick<CallHistory, 'record'>
): (request: CniRequest) => Promise<Reply> {
  return async (request) => {
    const begun = context.now()
    let call: Call | undefined
    const remember = (failure: CniError | undefined) =>
      history.record(request, call, (context.now() - begun) / 1000, failure)
    try {
      call = readCall(request.plugin, readEnvironment(request.env), request.stdin)
      const known = call
      const printed = await timed(context, call.verb, 'total', () => serve(context, known, request))
      logTraced(context, request)
      remember(undefined)
      return { v: 1, exit: 0, stdout: '', stderr: '', ...printed }
    } catch (thrown) {
      if (thrown instanceof RunRequested) return { v: 1, run: thrown.run }
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

/** For the log line of a call whose caller keeps a trace (https://www.w3.org/TR/trace-context/). */
function traceOf({ env: { TRACEPARENT } }: CniRequest): { readonly traceparent?: string } {
  return TRACEPARENT ? { traceparent: TRACEPARENT.slice(0, LONGEST_TRACEPARENT) } : {}
}

/** Characters. A malformed one must not fill the log. */
const LONGEST_TRACEPARENT = 512

/** A call that succeeds logs what it changed, and only one that is traced logs a line of its own. */
function logTraced({ log }: PodContext, request: CniRequest): void {
  const { traceparent } = traceOf(request)
  if (traceparent === undefined) return
  const { CNI_COMMAND: verb, CNI_CONTAINERID: container, CNI_IFNAME: ifname } = request.env
  log.info({ verb, plugin: request.plugin, container, ifname, traceparent }, 'a traced CNI call was served')
}

/** What goes to standard output, and to standard error. */
async function serve(context: PodContext, call: Call, request: CniRequest): Promise<Printed> {
  if (call.verb === 'VERSION')
    return { stdout: `${JSON.stringify({ cniVersion: newestVersion, supportedVersions })}\n` }
  const elsewhere = answerElsewhere(context, call, request)
  if (elsewhere !== undefined) return elsewhere
  const delegates = delegatesOf(request, call)
  const served = serveByPlugin(context, call, delegates, request)
  if (served !== undefined) return served
  const plugin = forwardingPluginNamed(call.plugin)
  if (plugin !== undefined)
    return forwarded(
      { files: context.files, serve: (next, others) => serveByPlugin(context, next, others, request) },
      ...([plugin, call, delegates] as const)
    )
  throw new CniError(`weftd does not know the plugin type "${call.plugin}"`, {
    code: cniCode.configuration,
    details: `it serves ${pluginTypes.join(', ')}; the executable may be newer than weftd`
  })
}

/** `undefined`: no plugin of that name has verbs of its own. */
function serveByPlugin(
  context: PodContext,
  call: ConfiguredCall,
  delegates: Delegates,
  request: CniRequest
): Promise<Printed> | undefined {
  const plugin = pluginNamed(call.plugin)
  if (plugin === undefined) return undefined
  return 'containerId' in call
    ? serveAttachment(context, withHostFiles(plugin.attachment(call), call.verb, request), call, delegates)
    : serveNetwork(context, withHostFiles(patternOf(plugin, call), call.verb, request), call, delegates)
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
      if (previous !== undefined) await refuseOtherSandbox(attachment, previous)
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

/**
 * A third party's plugin gives the addresses. If anything fails after it, its DEL is run before the error is reported.
 */
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
    if (prepare !== undefined && !(thrown instanceof RunRequested)) await del()
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

/**
 * A program that is no longer installed can't free anything, and a DEL that always fails would keep the container
 * forever.
 */
function runUnlessMissing(context: PodContext, delegates: Delegates, type: string, verb: 'DEL' | 'GC'): Printed {
  try {
    delegates.run(type, verb)
    return {}
  } catch (thrown) {
    if (!(thrown instanceof DelegateMissing)) throw thrown
    context.log.warn(
      { verb, delegate: type, err: thrown },
      'addresses kept by an IPAM plugin were not freed: it is not installed'
    )
    return { stderr: `${printable(thrown.message)}; the addresses that it keeps were not freed\n` }
  }
}

/** Before 0.3.0 a result holds one address per family: an address that could not be reported is not reserved. */
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
  const valid = validAttachments(call)
  return bothParts(
    () => verbsOf(context, pattern).gc(valid),
    () => (delegate === undefined ? {} : runUnlessMissing(context, delegates, delegate, 'GC'))
  )
}

/** Any attachment of the network: these verbs need only what all of them share, such as data directory and ranges. */
function patternOf(plugin: Plugin, call: NetworkCall): Attachment {
  const any = { ...call, containerId: 'any', ifname: 'any' }
  return plugin.attachment(call.verb === 'GC' ? { ...any, verb: 'DEL' } : { ...any, verb: 'CHECK', netns: '' })
}
