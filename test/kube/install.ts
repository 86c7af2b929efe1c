// Installs Weft in the test cluster as an administrator does, by `kubectl apply -f deploy/`, with the image of
// scripts/image in every containerd; and asks its parts.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { until } from '../lab/run.ts'
import type { KubeObject, Pod } from './api.ts'
import type { KubeCluster } from './cluster.ts'
import type { KubeNode } from './kube-node.ts'

const repository = fileURLToPath(new URL('../../', import.meta.url))
/** What `kubectl apply -f` is given. */
export const deployFolder = `${repository}deploy/`
export const weftLabels = 'app.kubernetes.io/name=weft'

/** The archive of our own image. */
export function weftArchive(): string {
  const archive = `${repository}dist/image/weft.tar`
  if (!existsSync(archive)) throw new Error(`there is no ${archive}; cure: scripts/image`)
  return archive
}

/** Waits until every node is Ready and has a ready pod of ours. */
export async function installWeft(cluster: KubeCluster): Promise<void> {
  await cluster.plane.kubectl(['apply', '--filename', deployFolder])
  await rolledOut(cluster)
  await Promise.all(cluster.nodes.map((node) => node.ready()))
}

export async function removeWeft(cluster: KubeCluster): Promise<void> {
  await cluster.plane.kubectl(['delete', '--filename', deployFolder, '--wait'], { timeoutMs: 240_000 })
}

/** Replaces the pods of ours one by one, as an upgrade does, and waits for the end of it. */
export async function rollWeft(cluster: KubeCluster): Promise<void> {
  await cluster.plane.kubectl(['--namespace', 'weft', 'rollout', 'restart', 'daemonset/weft'])
  await rolledOut(cluster)
}

/** Waits until all pods of ours are as the DaemonSet wants them now, and ready. Rejects with what they say. */
export async function rolledOut(cluster: KubeCluster): Promise<void> {
  const words = ['--namespace', 'weft', 'rollout', 'status', 'daemonset/weft', '--timeout=240s']
  await cluster.plane.kubectl(words, { timeoutMs: 250_000 }).catch(async (cause: unknown) => {
    const said = await cluster.describe('weft', weftLabels)
    throw new Error(`the pods of Weft are not ready:\n${said}\n${await weftLogs(cluster)}`, { cause })
  })
}

async function weftLogs(cluster: KubeCluster): Promise<string> {
  const words = ['--namespace', 'weft', 'logs', '--selector', weftLabels, '--all-containers', '--prefix', '--tail=60']
  return (await cluster.plane.kubectl(words, { check: false })).stdout
}

/** Our pod on a node. */
export async function weftPod(cluster: KubeCluster, node: KubeNode): Promise<Pod> {
  const pods = await cluster.plane.api.pods('weft', weftLabels)
  const pod = pods.find(({ spec, metadata }) => spec.nodeName === node.name && metadata.deletionTimestamp === undefined)
  if (!pod) throw new Error(`no pod of Weft on ${node.name}`)
  return pod
}

/** Changes keys of the ConfigMap, which our pods read when they start. */
export async function configure(cluster: KubeCluster, data: Readonly<Record<string, string>>): Promise<KubeObject> {
  return cluster.plane.api.patch('/api/v1/namespaces/weft/configmaps/weft-config', { data })
}

/** Waits until what `kubectl describe` prints of a pod matches. */
export function described(cluster: KubeCluster, name: string, pattern: RegExp): Promise<string> {
  return until(
    async () => {
      const { stdout } = await cluster.plane.kubectl(['describe', 'pod', name])
      if (!pattern.test(stdout)) throw new Error(stdout)
      return stdout
    },
    { what: `describe pod ${name} to tell ${pattern}`, deadlineMs: 120_000, everyMs: 500 }
  )
}
