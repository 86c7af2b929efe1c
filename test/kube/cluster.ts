// A cluster of the stories: a control plane and nodes that are hosts of one lab, without a pod network until one is
// installed.
import assert from 'node:assert/strict'
import { Lab } from '../lab/hosts.ts'
import { until } from '../lab/run.ts'
import type { Pod } from './api.ts'
import { ControlPlane, type ControlPlaneOptions } from './control-plane.ts'
import { KubeNode, type KubeNodeOptions } from './kube-node.ts'

export interface KubeClusterOptions extends ControlPlaneOptions {
  /** Two on one link when absent; the first is called h1. */
  readonly nodes?: readonly KubeNodeOptions[]
  /** OCI archives that every node shall have. */
  readonly images?: readonly string[]
}

/**
 * `await using cluster = await KubeCluster.start()`: two registered nodes that are not Ready, since nothing gives pods
 * a network.
 */
export class KubeCluster implements AsyncDisposable {
  readonly lab: Lab
  readonly plane: ControlPlane
  readonly nodes: KubeNode[] = []
  readonly #images: readonly string[]

  private constructor(lab: Lab, plane: ControlPlane, images: readonly string[]) {
    this.lab = lab
    this.plane = plane
    this.#images = images
  }

  static async start(options: KubeClusterOptions = {}): Promise<KubeCluster> {
    const lab = await Lab.start({ hosts: [] })
    try {
      const cluster = new KubeCluster(lab, await ControlPlane.start(lab, options), options.images ?? [])
      const wanted = options.nodes ?? [{}, {}]
      // One after the other: each start keeps both processors of a small machine busy.
      for (const [at, node] of wanted.entries()) await cluster.addNode({ name: `h${at + 1}`, ...node })
      return cluster
    } catch (error) {
      await lab[Symbol.asyncDispose]()
      throw error
    }
  }

  async addNode(options: KubeNodeOptions = {}): Promise<KubeNode> {
    const node = await KubeNode.start(this.plane, {
      name: `h${this.nodes.length + 1}`,
      images: this.#images,
      ...options
    })
    this.nodes.push(node)
    return node
  }

  /** The machine goes first, then its node object, as an autoscaler does it. */
  async removeNode(node: KubeNode): Promise<void> {
    await node[Symbol.asyncDispose]()
    await node.host[Symbol.asyncDispose]()
    await this.plane.api.remove(`/api/v1/nodes/${node.name}`)
    this.nodes.splice(this.nodes.indexOf(node), 1)
  }

  /** The n-th node, from 1, or the one with this name. */
  node(which: number | string | undefined): KubeNode {
    const found = typeof which === 'number' ? this.nodes[which - 1] : this.nodes.find(({ name }) => name === which)
    return found ?? assert.fail(`no node ${which}; there are ${this.nodes.map(({ name }) => name).join(', ')}`)
  }

  /** The node on which a pod runs. */
  nodeOf(pod: Pod): KubeNode {
    return this.node(pod.spec.nodeName)
  }

  /**
   * Waits for this many running, ready pods with these labels in the namespace default, in the order of their names.
   */
  async pods(labels: string, count: number, namespace = 'default'): Promise<readonly Pod[]> {
    const { api } = this.plane
    const running = async () => {
      const pods = await api.pods(namespace, labels)
      const ready = pods.filter(
        ({ status, metadata }) =>
          metadata.deletionTimestamp === undefined &&
          status.conditions?.some(({ type, status: is }) => type === 'Ready' && is === 'True')
      )
      return ready.length === count && ready
    }
    const pods = await until(running, { what: `${count} pods ${labels}`, deadlineMs: 180_000, everyMs: 200 }).catch(
      async (cause: unknown) => {
        throw new Error(`no ${count} running pods ${labels}:\n${await this.describe(namespace, labels)}`, { cause })
      }
    )
    return pods.toSorted((a, b) => a.metadata.name.localeCompare(b.metadata.name))
  }

  /** What an administrator is told of pods. */
  async describe(namespace: string, labels: string): Promise<string> {
    const words = ['--namespace', namespace, 'describe', 'pods', '--selector', labels]
    return (await this.plane.kubectl(words, { check: false })).stdout
  }

  /** Runs a program in a pod's first container, as the runtime does it for `kubectl exec`. */
  exec(pod: Pod, command: readonly string[]) {
    const id = pod.status.containerStatuses?.[0]?.containerID?.replace('containerd://', '')
    if (!id) throw new Error(`pod ${pod.metadata.name} has no container`)
    return this.nodeOf(pod).containerd.cri.exec(id, command)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node[Symbol.asyncDispose]()))
    await this.plane[Symbol.asyncDispose]()
    await this.lab[Symbol.asyncDispose]()
  }
}
