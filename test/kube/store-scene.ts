// What the tests of the Kubernetes store share: nodes as flanneld and kubelets leave them, a user with weftd's few
// rights, and a store of that user.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Json } from '../../daemon/config/json.ts'
import { PACE, type Pace } from '../../daemon/kube/watch.ts'
import { formatLeaseValue, parseLeaseKey } from '../../daemon/lease/lease.ts'
import { projectNode } from '../../daemon/stores/kubernetes/node.ts'
import { leaseOfNode } from '../../daemon/stores/kubernetes/record.ts'
import { KubernetesStore } from '../../daemon/stores/kubernetes/store.ts'
import { formatPrefix, perFamily } from '../../ipam/address.ts'
import type { StoreNetwork } from '../lab/store-contract.ts'
import { CONFIG, type Conditions } from '../lab/store-watcher.ts'
import type { Node } from './api.ts'
import type { ApiAlone } from './api-alone.ts'

export const PREFIX = 'flannel.alpha.coreos.com/'
/** The user of most tests, by client certificate. */
export const USER = 'weftd'

/** All that weftd asks of the API server, and nothing more. */
const RULES = [
  { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
  { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
  { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
  { apiGroups: [''], resources: ['events'], verbs: ['create', 'patch', 'list'] },
  { apiGroups: ['networking.k8s.io'], resources: ['networkpolicies'], verbs: ['list', 'watch'] }
]

/** The role, and the user and the service account of `default` with that name who have it. */
export const weftdRole = (user: string): readonly object[] => [
  { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: user }, rules: RULES },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: user },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: user },
    subjects: [
      { kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: user },
      { kind: 'ServiceAccount', namespace: 'default', name: user }
    ]
  }
]

/** Lets the user, and the service account of the same name in `default`, do what weftd does. */
export async function allow(api: ApiAlone, user = USER): Promise<void> {
  const [role, binding] = weftdRole(user)
  await api.api.call('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', role)
  await api.api.call('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', binding)
  await api.api.call('POST', '/api/v1/namespaces/default/serviceaccounts', { metadata: { name: user } })
}

export type NodeShape = {
  readonly podCidrs?: readonly string[]
  readonly annotations?: Readonly<Record<string, string>>
}

/** A node object as a kubelet registers it; annotations without their prefix. */
export const nodeObject = (name: string, { podCidrs = [], annotations = {} }: NodeShape = {}): object => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: {
    name,
    annotations: Object.fromEntries(Object.entries(annotations).map(([key, value]) => [PREFIX + key, value]))
  },
  spec: podCidrs.length === 0 ? {} : { podCIDR: podCidrs[0], podCIDRs: podCidrs }
})

/** The annotations of a node with flanneld. */
export const flannel = (publicIp: string, more: Readonly<Record<string, string>> = {}): Record<string, string> => ({
  'kube-subnet-manager': 'true',
  'backend-type': 'vxlan',
  'backend-data': '{"VNI":1}',
  'public-ip': publicIp,
  ...more
})

/** Our annotations on a node, without their prefix. */
export const annotationsOn = (node: Node): Record<string, string> =>
  Object.fromEntries(
    Object.entries(node.metadata.annotations ?? {}).flatMap(([key, value]) =>
      key.startsWith(PREFIX) ? [[key.slice(PREFIX.length), value]] : []
    )
  )

export type StoreOptions = {
  readonly url?: string
  readonly kubeconfig?: string
  readonly nodeName?: string
  readonly environment?: Readonly<Record<string, string>>
  readonly pace?: Partial<Pace>
  readonly podName?: string
  readonly podNamespace?: string
  readonly networkPolicyEnforced?: boolean
}

/** One network of the cluster: its configuration file, and stores on it. */
export class StorePlace implements AsyncDisposable {
  readonly api: ApiAlone
  readonly #folder: string
  readonly #kubeconfig: string

  private constructor(api: ApiAlone, folder: string, kubeconfig: string) {
    this.api = api
    this.#folder = folder
    this.#kubeconfig = kubeconfig
  }

  /** With a configuration file, and without any node. */
  static async make(api: ApiAlone): Promise<StorePlace> {
    const folder = mkdtempSync(join(tmpdir(), 'weft-kube-'))
    const place = new StorePlace(api, folder, await api.kubeconfig(USER))
    await api.api.call('DELETE', '/api/v1/nodes')
    place.configure(CONFIG)
    return place
  }

  file(name: string): string {
    return join(this.#folder, name)
  }

  configure(text: string): void {
    writeFileSync(this.file('net-conf.json'), text)
  }

  open(conditions: Conditions, options: StoreOptions = {}): Promise<KubernetesStore> {
    const { url, kubeconfig = this.#kubeconfig, nodeName = 'n1', environment = {}, pace = {}, ...more } = options
    return KubernetesStore.open(
      {
        ...{ kubeApiUrl: url, kubeconfigFile: kubeconfig, environment },
        nodeName: nodeName === '' ? undefined : nodeName,
        annotationPrefix: 'flannel.alpha.coreos.com',
        netConfigPath: this.file('net-conf.json'),
        setNodeNetworkUnavailable: true,
        networkPolicyEnforced: true,
        ...more
      },
      conditions.deps,
      { ...PACE, ...pace }
    )
  }

  node(name = 'n1'): Promise<Node> {
    return this.api.api.node(name)
  }

  async add(name: string, shape: NodeShape = {}): Promise<void> {
    await this.api.api.call('POST', '/api/v1/nodes', nodeObject(name, shape))
  }

  /** Annotations without their prefix; null removes one. */
  async annotate(name: string, annotations: Readonly<Record<string, string | null>>): Promise<void> {
    const prefixed = Object.fromEntries(Object.entries(annotations).map(([key, value]) => [PREFIX + key, value]))
    await this.api.api.patch(`/api/v1/nodes/${name}`, { metadata: { annotations: prefixed } })
  }

  async remove(name: string): Promise<void> {
    await this.api.api.remove(`/api/v1/nodes/${name}`)
  }

  /** As the common contract sees it: a key is the podCIDRs of a node, its value that node's annotations. */
  network(): StoreNetwork {
    rmSync(this.file('net-conf.json'))
    const podCidrs = (key: string) => perFamily(parseLeaseKey(key)!).map(([, prefix]) => formatPrefix(prefix))
    const holder = async (key: string) =>
      (await this.api.api.nodes()).find(({ spec }) => spec.podCIDRs?.join() === podCidrs(key).join())
    return {
      open: (conditions) => this.open(conditions),
      configure: async (text) => this.configure(text),
      allot: (key) => this.add('n1', { podCidrs: podCidrs(key) }),
      put: async (key, value) => {
        const name = (await holder(key))?.metadata.name ?? `node-${key.replaceAll(/[^\da-f]/g, '-')}`
        if ((await holder(key)) === undefined) await this.add(name, { podCidrs: podCidrs(key) })
        const { PublicIP = value } = value.startsWith('{') ? (JSON.parse(value) as { PublicIP?: unknown }) : {}
        await this.annotate(name, flannel(String(PublicIP)))
      },
      remove: async (key) => this.remove((await holder(key))!.metadata.name),
      valueOf: async (key) => {
        const node = await holder(key)
        try {
          const lease = leaseOfNode(projectNode(node as unknown as Json, PREFIX), PREFIX)
          return lease && formatLeaseValue(lease)
        } catch {
          return undefined
        }
      },
      [Symbol.asyncDispose]: () => this[Symbol.asyncDispose]()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    rmSync(this.#folder, { recursive: true, force: true })
  }
}
