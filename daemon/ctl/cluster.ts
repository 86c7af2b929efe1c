// Questions that several nodes of a cluster answer, through kubectl: the way back from the other node for `why`, and the
// matrix of `check`, and every node's view for `peers`.
import { isIP } from 'node:net'
import { readAnswer } from '../api/answers.ts'
import type { CheckAnswer, PeersAnswer, ViewAnswer, WayAnswer, WhyWayAnswer } from '../api/path-answers.ts'
import { reasonOf } from '../base/error.ts'
import { brokenWays } from './peers.ts'
import { askPod, askRemote, type Kubectl, nodeOfPod, nodesWithWeft, placeOfPod, weftPods } from './remote.ts'

/** Nodes of one `check`, and how many of them are asked at once. */
const SAMPLE = 16
const AT_ONCE = 4
/** Milliseconds after which `peers` asks no further node. */
const LONGEST = 60_000

/**
 * Asks the weftd of `node`, or of the node of the pod that `why` is about; then, for a way to another node, that node for
 * the way back. Errors: KUBECTL_FAILED, those of the weftd.
 */
export async function askCluster(
  kubectl: Kubectl,
  node: string | undefined,
  question: string,
  args: readonly string[]
): Promise<unknown> {
  const from = node ?? (await nodeOfPod(kubectl, args[1] ?? ''))
  const words = question === 'why' ? await withAddress(kubectl, from, args) : args
  const answer = await askRemote(kubectl, from, question, words)
  return question === 'why' ? withWayBack(kubectl, answer) : answer
}

/** A pod of another node, which the weftd of `from` does not know by name, by its address. */
async function withAddress(kubectl: Kubectl, from: string, args: readonly string[]): Promise<readonly string[]> {
  const [kind, name, to, toKind, toName] = args
  if (to === undefined || toKind !== 'pod' || toName === undefined || /^[\d.]+$|:/.test(toName)) return args
  const { node, address } = await placeOfPod(kubectl, toName)
  return node === from || address === '' ? args : [kind ?? '', name ?? '', to, 'address', address]
}

async function withWayBack(kubectl: Kubectl, answer: unknown): Promise<unknown> {
  const way = (answer as { readonly way?: WayAnswer } | null)?.way
  if (way?.to?.kind !== 'node' || way.from?.kind !== 'pod') return answer
  const { to, from } = way
  try {
    // What another node's weftd answers is no word of a command unless it is an address.
    if (isIP(from.address) === 0) throw new Error(`${JSON.stringify(from.address)} is no address`)
    const there = await askRemote(kubectl, to.name, 'why', ['address', from.address])
    const { way: back } = readAnswer<WhyWayAnswer>(there, { way: 'object' })
    return { ...(answer as object), way: { ...way, back } }
  } catch (error) {
    return { ...(answer as object), way: { ...way, backUnknown: reasonOf(error) } }
  }
}

/**
 * `check` from every node of a sample to every other one of it; `named`: only these nodes. Errors: KUBECTL_FAILED when
 * the nodes can't be listed.
 */
export async function checkCluster(kubectl: Kubectl, named: readonly string[]): Promise<CheckAnswer> {
  const all = await nodesWithWeft(kubectl)
  const nodes = named.length === 0 ? all : all.filter((node) => named.includes(node))
  const sample = nodes.filter(
    (_, at) =>
      nodes.length <= SAMPLE ||
      Math.floor((at * SAMPLE) / nodes.length) > Math.floor(((at - 1) * SAMPLE) / nodes.length)
  )
  const rows: CheckAnswer['rows'][number][] = []
  const unasked: { readonly node: string; readonly reason: string }[] = named
    .filter((node) => !all.includes(node))
    .map((node) => ({ node, reason: 'no weft pod runs on a node of this name' }))
  await fewAtOnce(sample, async (node) => {
    try {
      const answer = await askRemote(kubectl, node, 'check', [sample.join(',')])
      const found = readAnswer<Pick<CheckAnswer, 'rows'>>(answer, { rows: 'array' })
      rows.push(...found.rows.filter(({ source }) => source === 'tried'))
    } catch (error) {
      unasked.push({ node, reason: reasonOf(error) })
    }
  })
  const order = (name: string) => sample.indexOf(name)
  return {
    ...{ node: '', key: '', nodes: Math.max(0, nodes.length - 1), sampled: sample.length },
    rows: rows.sort((a, b) => order(a.node) - order(b.node)),
    ...(unasked.length > 0 && { unasked })
  }
}

/**
 * What every node knows of its peers, for a minute at most. The Kubernetes API carries no reports of nodes: 5,000 of them
 * that write on each change would burden it. Errors: KUBECTL_FAILED when the nodes can't be listed.
 */
export async function peersOfCluster(kubectl: Kubectl, now = () => performance.now()): Promise<PeersAnswer> {
  const pods = new Map((await weftPods(kubectl)).map((pod) => [pod.node, pod]))
  // Says what is missing.
  if (pods.size === 0) await nodesWithWeft(kubectl)
  const until = now() + LONGEST
  const views: ViewAnswer[] = []
  const unasked: { readonly node: string; readonly reason: string }[] = []
  await fewAtOnce([...pods.values()], async (pod) => {
    const { node } = pod
    try {
      if (now() >= until) throw new Error(`the nodes before it took ${LONGEST / 1000} s`)
      views.push(viewOf(node, await askPod(kubectl, pod, 'peers', [])))
    } catch (error) {
      unasked.push({ node, reason: reasonOf(error) })
    }
  })
  const byNode = (a: { readonly node: string }, b: { readonly node: string }) => (a.node < b.node ? -1 : 1)
  return { node: '', key: '', peers: [], views: views.sort(byNode), unasked: unasked.sort(byNode) }
}

/** Without what is whole: of 5,000 nodes that would be 25 million ways. */
function viewOf(node: string, answer: unknown): ViewAnswer {
  const { key, peers } = readAnswer<PeersAnswer>(answer, { node: 'string', key: 'string', peers: 'array' })
  const broken = peers.flatMap((peer) => {
    const ways = brokenWays(peer.ways)
    return ways.length === 0 ? [] : [{ ...peer, ways }]
  })
  const isWhole = ({ ways }: PeersAnswer['peers'][number]) =>
    ways.some(({ way }) => way === 'pods') &&
    ways.every(({ way, verdict }) => way !== 'pods' || verdict === 'whole') &&
    brokenWays(ways).length === 0
  const whole = peers.filter(isWhole).length
  return { node, key, whole, notAsked: peers.length - whole - broken.length, broken }
}

async function fewAtOnce<T>(all: readonly T[], work: (each: T) => Promise<void>): Promise<void> {
  const left = [...all]
  const worker = async (): Promise<void> => {
    for (let each = left.shift(); each !== undefined; each = left.shift()) await work(each)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}
