// Asks what the page shows: the weftd of one machine, or that of every node through kubectl, a few at a time and for a
// limited time.
import { type ChangesAnswer, type NodesAnswer, type PodsAnswer, readAnswer } from '../api/answers.ts'
import type { PeersAnswer } from '../api/path-answers.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableValue } from '../base/printable.ts'
import type { Asking } from './command.ts'
import { type Asked, factsOf, type NodeFacts, QUESTIONS, type Question } from './page/facts.ts'
import { viewOf } from './page/view.ts'
import { askPod, type Kubectl, type WeftPod, weftPods } from './remote.ts'
import { readStatus } from './status.ts'

/** Nodes that are asked at the same time: each is a kubectl of its own, with 50 MB. */
const AT_ONCE = 8
/** Milliseconds after which no further node is asked. */
const LONGEST_ROUND = 60_000

const READERS: Readonly<Record<Question, (answer: unknown) => object>> = {
  status: readStatus,
  nodes: (answer) => readAnswer<NodesAnswer>(answer, { leases: 'array' }),
  peers: (answer) => readAnswer<PeersAnswer>(answer, { node: 'string', key: 'string', peers: 'array' }),
  changes: (answer) => readAnswer<ChangesAnswer>(answer, { changes: 'array' }),
  pods: (answer) => readAnswer<PodsAnswer>(answer, { pods: 'array' })
}

/** Errors: DAEMON_UNREACHABLE and others, where no question has an answer. */
export async function askNode(ask: Asking['ask']): Promise<NodeFacts> {
  const answers: Record<string, object> = {}
  const unanswered: Partial<Record<Question, string>> = {}
  const errors: unknown[] = []
  const settled = await Promise.allSettled(QUESTIONS.map((question) => ask(question, [])))
  for (const [at, question] of QUESTIONS.entries()) {
    const result = settled[at]
    try {
      if (result?.status !== 'fulfilled') throw result?.reason
      answers[question] = READERS[question](printableValue(result.value))
    } catch (error) {
      errors.push(error)
      unanswered[question] = unansweredText(question, error)
    }
  }
  if (errors.length === QUESTIONS.length) throw errors[0]
  return factsOf(answers, unanswered)
}

const isUnknown = (error: unknown): boolean => error instanceof WeftError && error.code === 'UNKNOWN_QUESTION'

const unansweredText = (question: Question, error: unknown): string =>
  isUnknown(error) ? `this weftd does not know the question ${question}; a later one does` : printable(reasonOf(error))

/** Every node, as far as it answers. Errors: KUBECTL_FAILED when the weft pods cannot be listed. */
export async function askCluster(kubectl: Kubectl, now = () => performance.now()): Promise<readonly Asked[]> {
  const pods = await weftPods(kubectl)
  const until = now() + LONGEST_ROUND
  const asked: Asked[] = []
  const waiting = [...pods.entries()]
  let hasReports = false
  /** Each node has the reports of all from the same store: once is enough of what may be megabytes. */
  const slim = (one: Asked): Asked => {
    const { reports, ...peers } = one.facts?.peers ?? {}
    if (one.facts === undefined || reports === undefined) return one
    if (hasReports) return { ...one, facts: { ...one.facts, peers: peers as PeersAnswer } }
    hasReports = true
    return one
  }
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [at, pod] = next
      asked[at] = now() < until ? slim(await askOne(kubectl, pod)) : { name: pod.node, failure: TOO_LATE }
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return isReadable(asked)
    ? asked
    : asked.map((each) => (isReadable([each]) ? each : { name: each.name, failure: ODD }))
}

const ODD = 'its answer cannot be read; use one release on all nodes'

/** Whether all members are there and of the types that are expected, as far as the page looks at them. */
function isReadable(asked: readonly Asked[]): boolean {
  try {
    viewOf(asked, '', true)
    return true
  } catch {
    return false
  }
}

const TOO_LATE = `not asked: the nodes before it took ${LONGEST_ROUND / 1000} s`

async function askOne(kubectl: Kubectl, pod: WeftPod): Promise<Asked> {
  const name = printable(pod.node)
  try {
    const facts = cleaned(await askPod(kubectl, pod, 'page', [])) as NodeFacts
    const isNone = facts.status === undefined && facts.nodes === undefined
    return isNone ? { name, failure: ODD } : { name, facts: { ...facts, unanswered: facts.unanswered ?? {} } }
  } catch (error) {
    return { name, failure: printable(reasonOf(error)) }
  }
}

/** What is clean already is most of it, and to look through each text of 200 nodes takes a second. */
function cleaned(answer: unknown): object {
  const value = /[^ -~]|[\\@]/.test(JSON.stringify(answer)) ? printableValue(answer) : answer
  return typeof value === 'object' && value !== null ? value : {}
}
