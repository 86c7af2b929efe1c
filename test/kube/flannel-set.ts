// flannel's DaemonSet in the test cluster, as its published manifest has it, with the flanneld of scripts/peers: the image
// is empty, since flanneld runs with libraries and iptables of this machine.
import { cpSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { imageArchive } from '../lab/image.ts'
import { peersDirectory } from '../lab/peers.ts'
import { until } from '../lab/run.ts'
import type { Pod } from './api.ts'
import type { KubeCluster } from './cluster.ts'

const image = 'localhost/weft/flannel:1'
const namespace = 'kube-flannel'
const flannelLabels = 'app=flannel'
const inNamespace = (name: string) => ({ name, namespace, labels: { app: 'flannel' } })

/** Its folders are where those of the machine are mounted. */
export function flannelArchive(directory: string): Promise<string> {
  const folder = join(directory, 'flannel')
  mkdirSync(folder, { recursive: true })
  return imageArchive(folder, {
    name: image,
    files: { 'busybox/busybox': '/bin/busybox' },
    links: { bin: 'usr/bin', sbin: 'usr/sbin', lib: 'usr/lib', lib64: 'usr/lib64' },
    directories: ['usr', 'etc/alternatives', 'run', 'tmp', 'opt/bin'],
    command: ['/busybox/busybox', 'sleep', '1000000']
  })
}

const list = {
  name: 'cbr0',
  cniVersion: '0.3.1',
  plugins: [
    { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
    { type: 'portmap', capabilities: { portMappings: true } }
  ]
}

/** Host paths by volume, each mounted at the same path, or where the second says. */
const paths: Readonly<Record<string, readonly [host: string, inside?: string]>> = {
  run: ['/run/flannel'],
  net: ['/etc/cni/net.d'],
  plugins: ['/opt/cni/bin'],
  programs: ['/usr'],
  alternatives: ['/etc/alternatives'],
  flanneld: [`${peersDirectory()}/bin`, '/opt/bin']
}
const fromField = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } })

function daemonSet(): object {
  const labels = { app: 'flannel' }
  const mounts = Object.entries(paths).map(([name, [host, inside = host]]) => ({ name, mountPath: inside }))
  const volumeMounts = [...mounts, { name: 'cfg', mountPath: '/etc/kube-flannel/' }]
  const copy = (name: string, from: string, to: string) => ({
    ...{ name, image, imagePullPolicy: 'Never', volumeMounts },
    command: ['/busybox/busybox', 'cp', '-f', from, to]
  })
  return {
    apiVersion: 'apps/v1',
    kind: 'DaemonSet',
    metadata: inNamespace('kube-flannel-ds'),
    spec: {
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          hostNetwork: true,
          serviceAccountName: 'flannel',
          terminationGracePeriodSeconds: 5,
          priorityClassName: 'system-node-critical',
          tolerations: [{ operator: 'Exists', effect: 'NoSchedule' }],
          initContainers: [
            copy('install-cni', '/etc/kube-flannel/cni-conf.json', '/etc/cni/net.d/10-flannel.conflist'),
            copy('install-cni-plugin', '/opt/flannel/flannel', '/opt/cni/bin/flannel')
          ].map((each) => ({
            ...each,
            volumeMounts: [...volumeMounts, { name: 'plugin', mountPath: '/opt/flannel' }]
          })),
          containers: [
            {
              ...{ name: 'kube-flannel', image, imagePullPolicy: 'Never', volumeMounts },
              command: ['/opt/bin/flanneld'],
              args: ['--ip-masq', '--kube-subnet-mgr', '--iface=eth0'],
              securityContext: { privileged: false, capabilities: { add: ['NET_ADMIN', 'NET_RAW'] } },
              env: [
                { name: 'PATH', value: '/usr/sbin:/usr/bin' },
                fromField('POD_NAME', 'metadata.name'),
                fromField('POD_NAMESPACE', 'metadata.namespace'),
                fromField('FLANNELD_PUBLIC_IP', 'status.hostIP')
              ]
            }
          ],
          volumes: [
            ...Object.entries(paths).map(([name, [path]]) => ({ name, hostPath: { path } })),
            { name: 'plugin', hostPath: { path: `${peersDirectory()}/cni` } },
            { name: 'cfg', configMap: { name: 'kube-flannel-cfg' } }
          ]
        }
      }
    }
  }
}

function manifest(): readonly object[] {
  const role = 'rbac.authorization.k8s.io/v1'
  const rules = [
    { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
    { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
    { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] }
  ]
  const data = {
    'cni-conf.json': `${JSON.stringify(list, undefined, 2)}\n`,
    'net-conf.json': '{"Network":"10.244.0.0/16","EnableNFTables":false,"Backend":{"Type":"vxlan"}}'
  }
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: inNamespace('flannel') },
    { apiVersion: role, kind: 'ClusterRole', metadata: { name: 'flannel' }, rules },
    {
      apiVersion: role,
      kind: 'ClusterRoleBinding',
      metadata: { name: 'flannel' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'flannel' },
      subjects: [{ kind: 'ServiceAccount', name: 'flannel', namespace }]
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: inNamespace('kube-flannel-cfg'), data },
    daemonSet()
  ]
}

/** Applies flannel, and waits until every node is Ready with it. */
export async function installFlannel(cluster: KubeCluster): Promise<void> {
  for (const { host } of cluster.nodes) {
    cpSync(`${peersDirectory()}/cni`, host.path('/opt/cni/bin'), { recursive: true })
    await host.sh('mkdir -p /run/flannel')
  }
  await cluster.plane.apply(...manifest())
  await cluster.pods(flannelLabels, cluster.nodes.length, namespace).catch(async (cause: unknown) => {
    const words = ['--namespace', namespace, 'logs', '--selector', flannelLabels, '--all-containers', '--tail=60']
    const { stdout } = await cluster.plane.kubectl(words, { check: false })
    throw new Error(`flannel is not ready:\n${stdout}`, { cause })
  })
  await Promise.all(cluster.nodes.map((node) => node.ready()))
}

/** Its pods that have not ended, by node. */
export async function flannelPods(cluster: KubeCluster): Promise<ReadonlyMap<string, Pod>> {
  const pods = await cluster.plane.api.pods(namespace, flannelLabels)
  return new Map(pods.map((pod) => [String(pod.spec.nodeName), pod]))
}

/** What the administrator sees of the DaemonSet's template. */
export async function templateOf(cluster: KubeCluster): Promise<string> {
  const path = `/apis/apps/v1/namespaces/${namespace}/daemonsets/kube-flannel-ds`
  const { spec } = await until(() => cluster.plane.api.get(path), { what: "flannel's DaemonSet" })
  return JSON.stringify((spec as { readonly template: object }).template)
}
