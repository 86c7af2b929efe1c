// `kubectl weft migrate`: moves a cluster from flannel's DaemonSet to Weft's and back, node by node, and stops at the
// first node with a fault.
import { reasonOf, WeftError } from '../base/error.ts'
import { printable, printableJson, printableValue } from '../base/printable.ts'
import {
  BEFORE,
  type ClusterFacts,
  type ClusterNode,
  clusterPlan,
  configMapsOf,
  type DaemonSet,
  excludingPatch,
  flannelSets,
  type Json,
  type KubeObject,
  LABEL,
  MOVED,
  restoringPatch,
  toMove,
  weftObjects
} from '../migrate/cluster.ts'
import { untilNothing } from '../migrate/until.ts'
import type { Asking } from './command.ts'
import { reached } from './proof.ts'
import { askPod, type Kubectl, weftPods } from './remote.ts'

/** Milliseconds between two looks at the cluster. */
const POLL = 500

type Cluster = { readonly asking: Asking; readonly kubectl: Kubectl; readonly facts: ClusterFacts }

export async function migrateCluster(asking: Asking, kubectl: Kubectl): Promise<0 | 1> {
  const [action = 'plan'] = asking.operands
  const facts = await factsOf(kubectl)
  const plan = clusterPlan(facts)
  if (action === 'plan' || (action === 'apply' && plan.faults.length > 0)) {
    const text = asking.json
      ? printableJson(JSON.stringify(plan, null, 2))
      : planLines(printableValue(plan) as typeof plan).join('\n')
    asking.out(`${text}\n`)
    return plan.faults.length > 0 ? 1 : 0
  }
  const cluster = { asking, kubectl, facts }
  try {
    await (action === 'apply' ? applyTo(cluster) : rollBackFrom(cluster))
    return 0
  } catch (error) {
    const cure = error instanceof WeftError ? `cure: ${error.cure}\n` : ''
    asking.out(
      `stopped: ${printable(reasonOf(error))}\n${cure}"kubectl weft migrate apply" goes on with this node, "kubectl weft migrate rollback" goes back; until then each node keeps what it has\n`
    )
    return 1
  }
}

function planLines({ found, steps, gap, faults }: ReturnType<typeof clusterPlan>): readonly string[] {
  const missing = faults.flatMap(({ message, cure }) => [`  ${message}`, `  cure: ${cure}`])
  return [
    ...['Found:', ...found.map((line) => `  ${line}`), 'kubectl weft migrate apply would:'],
    ...steps.map((line, at) => `  ${String(at + 1).padStart(2)}  ${line}`),
    `Packets of pods that are lost: ${gap}`,
    ...(missing.length === 0 ? [] : ['Missing, so nothing would be done:', ...missing])
  ]
}

/** Errors: KUBECTL_FAILED. */
async function json<T>(kubectl: Kubectl, what: string, words: readonly string[], input?: string): Promise<T> {
  const text = await mustRun(kubectl, what, [...words, '--output', 'json'], input)
  try {
    return JSON.parse(text) as T
  } catch (cause) {
    throw failed(what, 'kubectl printed no JSON', cause)
  }
}

async function mustRun(kubectl: Kubectl, what: string, words: readonly string[], input?: string): Promise<string> {
  const { exit, stdout, stderr } = await kubectl(words, input)
  if (exit === 0) return stdout
  throw failed(what, stderr.split('\n').findLast((line) => line.trim() !== '') ?? 'kubectl printed nothing')
}

const failed = (what: string, why: string, cause?: unknown): WeftError =>
  new WeftError(
    'KUBECTL_FAILED',
    `${what} failed: ${why}`,
    'check that kubectl reaches the cluster as an administrator, then run the same command again',
    { cause }
  )

type Listed<T> = { readonly items: readonly T[] }
type Node = { readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> } }
type Pod = {
  readonly metadata: {
    readonly name: string
    readonly deletionTimestamp?: string
    readonly ownerReferences?: readonly Json[]
  }
  readonly spec: { readonly nodeName?: string }
  readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] }
}

async function factsOf(kubectl: Kubectl): Promise<ClusterFacts> {
  const all = await json<Listed<DaemonSet>>(kubectl, 'listing the DaemonSets', [
    'get',
    'daemonsets',
    '--all-namespaces'
  ])
  const sets = flannelSets(all.items)
  const [set] = sets
  const nodes = await json<Listed<Node>>(kubectl, 'listing the nodes', ['get', 'nodes'])
  const names = new Set(set === undefined ? [] : (await podsOf(kubectl, set)).map(({ spec }) => spec.nodeName))
  const data = set && (await dataOf(kubectl, set))
  return {
    sets,
    ...(data && { data }),
    nodes: nodes.items.map(({ metadata: { name, labels } }) => ({
      name,
      isMoved: labels?.[LABEL] === MOVED,
      hasFlannel: names.has(name)
    }))
  }
}

/** Of the ConfigMap with net-conf.json. */
async function dataOf(kubectl: Kubectl, set: DaemonSet): Promise<Readonly<Record<string, string>> | undefined> {
  for (const name of configMapsOf(set)) {
    const words = ['get', 'configmap', '--namespace', set.metadata.namespace, name]
    const { data = {} } = await json<{ data?: Record<string, string> }>(kubectl, `reading the ConfigMap ${name}`, words)
    if ('net-conf.json' in data) return data
  }
  return undefined
}

async function podsOf(kubectl: Kubectl, { metadata: { name, namespace } }: DaemonSet): Promise<readonly Pod[]> {
  const list = await json<Listed<Pod>>(kubectl, "listing flannel's pods", ['get', 'pods', '--namespace', namespace])
  return list.items.filter(({ metadata }) => metadata.ownerReferences?.some((owner) => owner.name === name))
}

const isReady = ({ metadata, status }: Pod): boolean =>
  metadata.deletionTimestamp === undefined &&
  status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True') === true

/** Errors: KUBECTL_FAILED, MIGRATE_UNPROVEN; nodes before are moved then, and none after. */
async function applyTo(cluster: Cluster): Promise<void> {
  const { asking, kubectl, facts } = cluster
  const { out } = asking
  const [set] = facts.sets
  if (set === undefined) return
  const list = { apiVersion: 'v1', kind: 'List', items: weftObjects(await manifests(cluster), set, facts.data ?? {}) }
  out("Weft's manifests, with flannel's configuration …\n")
  await mustRun(kubectl, "applying Weft's manifests", ['apply', '--filename', '-'], JSON.stringify(list))
  await patched(kubectl, set, excludingPatch(set))
  const nodes = toMove(facts)
  for (const node of nodes) await moveNode(cluster, set, node)
  out(`${nodes.length} nodes run Weft; docs/migrate.md says how to remove flannel for good\n`)
}

/** As in the files: `kubectl apply` would print what is in the cluster. Errors: KUBECTL_FAILED. */
async function manifests({ asking, kubectl }: Cluster): Promise<readonly KubeObject[]> {
  const what = "reading Weft's manifests"
  const words = ['create', '--dry-run=client', '--filename', asking.migrate.manifests, '--output', 'json']
  const text = await mustRun(kubectl, what, words)
  try {
    // One object after the other, each from the beginning of a line.
    const objects = text
      .split(/\n(?=\{)/)
      .map((each) => JSON.parse(each) as Json & { readonly items?: readonly Json[] })
    return objects.flatMap((each) => each.items ?? [each]) as unknown as readonly KubeObject[]
  } catch (cause) {
    throw failed(what, 'kubectl printed no JSON', cause)
  }
}

const patched = (kubectl: Kubectl, { metadata: { name, namespace } }: DaemonSet, patch: Json): Promise<string> =>
  mustRun(kubectl, `changing DaemonSet ${name}`, [
    ...['patch', 'daemonset', '--namespace', namespace, name, '--type', 'merge', '--patch', JSON.stringify(patch)]
  ])

const label = (kubectl: Kubectl, node: string, value: string): Promise<string> =>
  mustRun(kubectl, `labelling node ${node}`, ['label', 'node', node, value, '--overwrite'])

async function moveNode({ asking, kubectl }: Cluster, set: DaemonSet, { name }: ClusterNode): Promise<void> {
  const { out, migrate } = asking
  out(`${name} …\n`)
  await label(kubectl, name, `${LABEL}=${MOVED}`)
  await waited(`node ${name}`, migrate.wait, async () => {
    if ((await podsOf(kubectl, set)).some(({ spec }) => spec.nodeName === name)) return "flannel's pod has not ended"
    const pod = (await weftPods(kubectl)).find(({ node }) => node === name)
    if (pod === undefined) return 'there is no running weft pod'
    const { waits, lost } = await reached((question, args) => askPod(kubectl, pod, question, args))
    if (waits !== '') return `weftd ${waits}`
    if (lost.length > 0 && !migrate.ignoreLost) return `weftd does not reach ${lost.join('; ')}`
    await inPod(kubectl, pod, 'apply-in-pod')
    return undefined
  })
}

/** Without the deadline of a question, since a step may last. */
async function inPod(
  kubectl: Kubectl,
  pod: { readonly namespace: string; readonly pod: string; readonly node: string },
  action: string
): Promise<void> {
  const words = [
    'exec',
    '--namespace',
    pod.namespace,
    pod.pod,
    '--container',
    'weftd',
    '--',
    'weftctl',
    'migrate',
    action
  ]
  await mustRun(kubectl, `weftctl migrate ${action} on node ${pod.node}`, words)
}

/** Errors: KUBECTL_FAILED. What could not be asked is awaited, too: pods come and go. */
function waited(what: string, seconds: number, look: () => Promise<string | undefined>): Promise<void> {
  return untilNothing(() => look().catch(reasonOf), {
    ...{ deadlineMs: seconds * 1000, everyMs: POLL },
    late: (reason) =>
      new WeftError(
        'MIGRATE_UNPROVEN',
        `${what}: after ${seconds} s ${reason}`,
        'look at its pods (kubectl get pods -A -o wide) and at "kubectl weft peers"; then run the same command again'
      )
  })
}

/** Errors: as `applyTo`. */
async function rollBackFrom({ asking, kubectl, facts }: Cluster): Promise<void> {
  const { out, migrate } = asking
  const [set] = facts.sets
  if (set === undefined)
    throw new WeftError(
      'MIGRATE_FAILED',
      'no DaemonSet runs flanneld',
      'apply flannel’s manifest again, then run the same command'
    )
  if (set.metadata.annotations?.[BEFORE] !== undefined) await patched(kubectl, set, excludingPatch(set))
  for (const { name } of facts.nodes.filter(({ isMoved }) => isMoved)) {
    out(`${name} …\n`)
    const pod = (await weftPods(kubectl)).find(({ node }) => node === name)
    if (pod !== undefined)
      await waited(`node ${name}`, migrate.wait, () => inPod(kubectl, pod, 'rollback-in-pod').then(() => undefined))
    await label(kubectl, name, `${LABEL}-`)
    await waited(`node ${name}`, migrate.wait, async () => {
      if ((await weftPods(kubectl)).some(({ node }) => node === name)) return 'the weft pod has not ended'
      const pods = (await podsOf(kubectl, set)).filter(({ spec }) => spec.nodeName === name)
      return pods.some(isReady) ? undefined : "flannel's pod is not ready"
    })
  }
  const patch = restoringPatch(set)
  if (patch !== undefined) await patched(kubectl, set, patch)
  out('all nodes run flannel again; "kubectl delete -f" with Weft’s manifests removes the rest\n')
}
