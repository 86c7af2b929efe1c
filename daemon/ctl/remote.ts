// Asks the weftd of another node: runs weftctl in the weft pod there through kubectl exec; its answer is printed here.
import { WeftError } from '../base/error.ts'

/** Runs kubectl to its end or its deadline; `exit` is undefined when it could not be run or did not end. */
export type Kubectl = (
  words: readonly string[],
  input?: string
) => Promise<{ readonly exit: number | undefined; readonly stdout: string; readonly stderr: string }>

/** Labels of the pods of deploy/. */
const WEFT = 'app.kubernetes.io/name=weft'

/** Asks the weftd of a node. Errors: KUBECTL_FAILED with the message of kubectl, or of the weftctl there. */
export async function askRemote(
  kubectl: Kubectl,
  node: string,
  question: string,
  args: readonly string[]
): Promise<unknown> {
  return askPod(kubectl, await weftPodOn(kubectl, node), question, args)
}

/** A weft pod, and the node that it is on. */
export type WeftPod = { readonly namespace: string; readonly pod: string; readonly node: string }

/** Asks the weftd in this pod. Errors: KUBECTL_FAILED. */
export async function askPod(
  kubectl: Kubectl,
  { namespace, pod, node }: WeftPod,
  question: string,
  args: readonly string[]
): Promise<unknown> {
  const inPod = ['exec', '--namespace', namespace, pod, '--container', 'weftd', '--']
  const { stdout, stderr } = await kubectl([...inPod, 'weftctl', question, ...args, '--json'])
  try {
    // The exit status belongs to the answer; a failed command prints nothing.
    return JSON.parse(stdout)
  } catch {
    throw failed(`asking pod ${namespace}/${pod} on node ${node}`, stderr || stdout)
  }
}

/** The weft pods that run, in the whole cluster. Errors: KUBECTL_FAILED. */
export const weftPods = (kubectl: Kubectl): Promise<readonly WeftPod[]> =>
  listed(kubectl, 'status.phase=Running', 'looking for the weft pods')

async function listed(kubectl: Kubectl, fields: string, what: string): Promise<readonly WeftPod[]> {
  const path = '{range .items[*]}{.metadata.namespace} {.metadata.name} {.spec.nodeName}{"\\n"}{end}'
  const words = ['get', 'pods', '--all-namespaces', '--selector', WEFT, '--field-selector', fields]
  const { exit, stdout, stderr } = await kubectl([...words, '--output', `jsonpath=${path}`])
  if (exit !== 0) throw failed(what, stderr)
  return stdout.split('\n').flatMap((line) => {
    const [namespace, pod, node = ''] = line.trim().split(/\s+/)
    return namespace && pod ? [{ namespace, pod, node }] : []
  })
}

async function weftPodOn(kubectl: Kubectl, node: string): Promise<WeftPod> {
  const fields = `spec.nodeName=${node},status.phase=Running`
  const [first] = await listed(kubectl, fields, `looking for the weft pod of node ${node}`)
  if (first !== undefined) return { ...first, node }
  throw new WeftError(
    'KUBECTL_FAILED',
    `node ${JSON.stringify(node)} has no running pod with the label ${WEFT}`,
    'check the name with "kubectl get nodes", and the pods with "kubectl get pods -A -o wide -l app.kubernetes.io/name=weft"'
  )
}

/** The nodes that have a running weft pod, in their order by name. Errors: KUBECTL_FAILED. */
export async function nodesWithWeft(kubectl: Kubectl): Promise<readonly string[]> {
  const path = '{range .items[*]}{.spec.nodeName}{"\\n"}{end}'
  const words = ['get', 'pods', '--all-namespaces', '--selector', WEFT, '--field-selector', 'status.phase=Running']
  const { exit, stdout, stderr } = await kubectl([...words, '--output', `jsonpath=${path}`])
  if (exit !== 0) throw failed('looking for the weft pods', stderr)
  const nodes = new Set(stdout.split(/\s+/).filter((name) => name !== ''))
  if (nodes.size > 0) return [...nodes].sort()
  throw new WeftError(
    'KUBECTL_FAILED',
    `no running pod has the label ${WEFT}`,
    'check the pods with "kubectl get pods -A -o wide -l app.kubernetes.io/name=weft"'
  )
}

/** The node that a pod is on, and its first address, empty until it has one. Errors: KUBECTL_FAILED. */
export async function placeOfPod(
  kubectl: Kubectl,
  name: string
): Promise<{ readonly node: string; readonly address: string }> {
  const [pod = '', namespace] = name.split('/').reverse()
  const where = namespace === undefined ? [] : ['--namespace', namespace]
  const path = 'jsonpath={.spec.nodeName} {.status.podIP}'
  const { exit, stdout, stderr } = await kubectl(['get', 'pod', ...where, pod, '--output', path])
  if (exit !== 0) throw failed(`looking for the node of pod ${name}`, stderr)
  const [node = '', address = ''] = stdout.trim().split(' ')
  return { node, address }
}

/**
 * The node that a pod is on; `name` is `namespace/name`, or a name in the namespace of the kubectl context. Errors:
 * KUBECTL_FAILED.
 */
export async function nodeOfPod(kubectl: Kubectl, name: string): Promise<string> {
  const [pod = '', namespace] = name.split('/').reverse()
  const where = namespace === undefined ? [] : ['--namespace', namespace]
  const { exit, stdout, stderr } = await kubectl(['get', 'pod', ...where, pod, '--output', 'jsonpath={.spec.nodeName}'])
  if (exit !== 0) throw failed(`looking for the node of pod ${name}`, stderr)
  if (stdout.trim() !== '') return stdout.trim()
  throw new WeftError(
    'KUBECTL_FAILED',
    `pod ${name} is not scheduled to a node yet, so no network has been set up for it`,
    `run "kubectl describe pod ${pod}" to see why the scheduler has not placed it`
  )
}

const failed = (what: string, stderr: string): WeftError =>
  new WeftError(
    'KUBECTL_FAILED',
    `${what} failed: ${wordsOf(stderr)}`,
    'check that kubectl can reach the cluster and exec into the weft pods; for a deleted pod, name its node with --node'
  )

/** The message of the weftctl there, otherwise the last line: kubectl logs its retries before it. */
function wordsOf(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '')
  const reported = lines.filter((line) => /^(weftctl|cure): /.test(line))
  return (reported.length > 0 ? reported.join('; ') : lines.at(-1)) ?? 'kubectl printed nothing'
}
