// `weftctl why pod NAME`: what happened last to a pod, its cause and cure, and what is in the kernel because of it.
import { type CallAnswer, type ObjectAnswer, type PodAnswer, readAnswer, type WhyPodAnswer } from '../api/answers.ts'
import { shortTime } from './columns.ts'
import type { Command } from './command.ts'
import { objectLines } from './object-lines.ts'
import { bandwidthText, hostPortText } from './pods.ts'
import { isWholeWay, wayLines } from './way-text.ts'

export function whyPod(answer: unknown): ReturnType<Command['read']> {
  const found = readAnswer<WhyPodAnswer>(answer, {
    pod: 'string',
    calls: 'array',
    attachments: 'array',
    blocking: 'array',
    near: 'array',
    rememberedSince: 'string'
  })
  if (found.calls.length === 0 && found.attachments.length === 0) return { text: unknownPod(found), exit: 1 }
  const failed = failures(found.calls)
  const lines = [
    `${found.pod}: ${verdict(found, failed)}`,
    ...failed.flatMap(failureLines),
    ...found.attachments.flatMap(attachmentLines),
    '',
    'calls, latest first:',
    ...found.calls.map((call) => `  ${callLine(call)}`),
    ...blockingLines(found.blocking),
    ...(found.way === undefined ? [] : ['', ...wayLines(found.way)])
  ]
  // What another plugin, or one like macvlan, sets up has no objects on the host.
  const isThere = found.attachments.length > 0 || found.calls[0]?.verb !== 'DEL'
  const isWell = isThere && found.attachments.every((each) => isWhole(each) && each.netns !== 'gone')
  return { text: `${lines.join('\n')}\n`, exit: isWell && failed.length === 0 && isWholeWay(found.way) ? 0 : 1 }
}

function verdict({ attachments, calls }: WhyPodAnswer, failed: readonly CallAnswer[]): string {
  const refused = failed.find((call) => call.verb === 'ADD' && !leavesEarlier(call, attachments, calls))
  if (refused !== undefined) return `could not be set up${restOfChain(refused, calls)}`
  if (failed.some(({ verb }) => verb === 'DEL')) return 'could not be removed'
  if (attachments.some(({ netns }) => netns === 'gone'))
    return 'its network namespace is gone, and no DEL was received for it'
  const isDifferent = failed.some(foundDifference)
  if (attachments.length === 0) {
    if (calls[0]?.verb === 'DEL') return 'was removed'
    return isDifferent ? 'differs from how it was set up' : 'is set up; it has no objects on the host'
  }
  if (!attachments.every(isWhole)) return 'is set up, but not all of it is in the kernel'
  return isDifferent ? 'is set up, but the last CHECK found a difference' : 'is set up'
}

/**
 * A repeated ADD that is refused leaves what an earlier one set up. Calls to an earlier weftd are not remembered, but
 * the links of its pods exist.
 */
function leavesEarlier(
  refused: CallAnswer,
  attachments: WhyPodAnswer['attachments'],
  calls: readonly CallAnswer[]
): boolean {
  const isBeside = (other: { readonly container: string; readonly interface: string }) =>
    other.container === refused.container && other.interface === refused.interface
  if (refused.isFurther === true)
    return !calls.some(
      (call) => isBeside(call) && call.verb === 'DEL' && call.plugin === refused.plugin && call.at >= refused.at
    )
  const isPartOfChain = calls.some((call) => isBeside(call) && call.verb === 'ADD' && call !== refused)
  return !isPartOfChain && attachments.some((each) => isBeside(each) && each.link !== '' && each.netns === 'alive')
}

/** Codes from 100 on are differences found in the kernel; a CHECK that could not be parsed or served found none. */
const foundDifference = ({ verb, failure }: CallAnswer): boolean =>
  verb === 'CHECK' && failure !== undefined && failure.code >= 100

/**
 * In a chain one plugin fails: which, and what happened to what those before it set up. Empty without earlier plugins.
 */
function restOfChain(refused: CallAnswer, calls: readonly CallAnswer[]): string {
  const { interface: name, container, plugin } = refused
  const ofIt = calls.filter((call) => call.interface === name && call.container === container && !call.failure)
  const made = ofIt.filter((call) => call.verb === 'ADD' && call.plugin !== plugin)
  if (made.length === 0) return ''
  const isUndone = (add: CallAnswer) =>
    ofIt.some((call) => call.verb === 'DEL' && call.plugin === add.plugin && call.at >= add.at)
  const parts = (adds: readonly CallAnswer[], words: string) => {
    const names = adds.map((add) => add.plugin).toReversed()
    return names.length === 0 ? '' : `; what ${names.join(', ')} set up ${words}`
  }
  const undone = parts(made.filter(isUndone), 'was removed by the runtime')
  const left = parts(
    made.filter((add) => !isUndone(add)),
    'remains until the runtime removes it (DEL)'
  )
  return `: ${plugin} failed for ${name}${undone}${left}`
}

/**
 * Failures without a later success of the same plugin and verb, or of its ADD. The answer has the last call of each.
 */
function failures(calls: readonly CallAnswer[]): readonly CallAnswer[] {
  const later = (call: CallAnswer) => (other: CallAnswer) =>
    other.failure === undefined &&
    other.plugin === call.plugin &&
    other.interface === call.interface &&
    other.at > call.at &&
    (other.verb === call.verb || other.verb === 'ADD')
  return calls.filter((call) => call.failure !== undefined && !calls.some(later(call)))
}

function failureLines(call: CallAnswer): readonly string[] {
  const { sentence, code, details } = call.failure ?? { sentence: '', code: 0, details: '' }
  return [
    '',
    `${call.verb} of ${call.interface} by ${call.plugin} failed at ${shortTime(call.at)} (CNI error ${code}):`,
    `  ${sentence}`,
    ...(details === '' ? [] : [`  ${details}`])
  ]
}

function attachmentLines(pod: PodAnswer & { readonly objects: readonly ObjectAnswer[] }): readonly string[] {
  const bandwidth = bandwidthText(pod.bandwidth)
  return [
    '',
    `${pod.interface} in network ${pod.network}, container ${pod.container}, namespace ${pod.netns}`,
    ...(pod.addresses.length > 0 ? [`  addresses   ${pod.addresses.join(', ')}`] : []),
    ...(pod.hostPorts.length > 0 ? [`  host ports  ${pod.hostPorts.map(hostPortText).join(', ')}`] : []),
    ...(bandwidth === '' ? [] : [`  bandwidth   ${bandwidth}`]),
    '  on this host because of it:',
    ...objectLines(pod.objects)
  ]
}

const callLine = ({ verb, plugin, interface: name, container, at, seconds, failure }: CallAnswer): string =>
  `${shortTime(at)}  ${verb} ${name} by ${plugin}, container ${container.slice(0, 12)}, ${Math.round(seconds * 10_000) / 10} ms: ${
    failure === undefined ? 'ok' : `FAILED, CNI error ${failure.code}`
  }`

function blockingLines(blocking: readonly string[]): readonly string[] {
  if (blocking.length === 0) return []
  return ['', 'no pod can be set up on this node now:', ...blocking.map((sentence) => `  ${sentence}`)]
}

function unknownPod({ pod, near, blocking, rememberedSince }: WhyPodAnswer): string {
  const lines = [
    `${pod}: weftd has received no call for this pod since ${shortTime(rememberedSince)}`,
    ...(near.length === 0 ? [] : [`similar names on this node: ${near.join(', ')}`]),
    'cure: ask on the node of the pod (kubectl get pod -o wide), by NAMESPACE/NAME, address or container id; if this is its node, the runtime has not called weft: check its log and which file sorts first in /etc/cni/net.d',
    ...blockingLines(blocking)
  ]
  return `${lines.join('\n')}\n`
}

const isWhole = ({ objects }: { readonly objects: readonly ObjectAnswer[] }): boolean =>
  objects.every(({ state }) => state === 'there')
