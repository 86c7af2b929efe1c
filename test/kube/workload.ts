// What runs in the test cluster: web servers in real containers, a service before them, CoreDNS; and who reaches whom,
// as a table.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { busyboxImage, imageArchive } from '../lab/image.ts'
import { until } from '../lab/run.ts'
import type { Pod } from './api.ts'
import type { KubeCluster } from './cluster.ts'
import { part } from './parts.ts'

/** Port of the web servers in their pods. */
export const webPort = 8080

/** A container whose web server answers with the name of its pod. */
export function webContainer(more: object = {}): object {
  return {
    name: 'web',
    image: busyboxImage,
    imagePullPolicy: 'Never',
    command: ['sh', '-c', `echo $POD_NAME > /www/index.html; exec httpd -f -p ${webPort} -h /www`],
    env: [{ name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } }],
    ports: [{ containerPort: webPort }],
    readinessProbe: { httpGet: { port: webPort, path: '/' }, periodSeconds: 1, timeoutSeconds: 5 },
    ...more
  }
}

/** A pod by itself. */
export function webPod(name: string, container: object = webContainer()): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: { terminationGracePeriodSeconds: 1, containers: [container] }
  }
}

/** Spread over the nodes as evenly as their number allows. */
export function webDeployment(name: string, replicas: number, container: object = webContainer()): object {
  const labels = { app: name }
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace: 'default' },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels },
        spec: {
          // With 0 the API server forgets pods that still run.
          terminationGracePeriodSeconds: 1,
          containers: [container],
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'DoNotSchedule',
              labelSelector: { matchLabels: labels }
            }
          ]
        }
      }
    }
  }
}

export function webService(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace: 'default' },
    spec: { selector: { app: name }, ports: [{ port: 80, targetPort: webPort }] }
  }
}

/** One GET from a pod: the body, or what stood in the way. */
export async function fetchFrom(cluster: KubeCluster, from: Pod, url: string): Promise<string> {
  // wget's own -T ends Debian's static busybox with a segmentation fault.
  const { stdout, stderr, exitCode } = await cluster.exec(from, ['timeout', '5', 'wget', '-q', '-O', '-', url])
  return exitCode === 0 ? stdout.trim() : `no answer: ${stderr.trim()}`
}

/** Waits until a GET of `url` from a pod is answered by one of these pods; tells which. */
export function answeredBy(cluster: KubeCluster, from: Pod, url: string, by: readonly Pod[]): Promise<string> {
  const names = by.map(({ metadata }) => metadata.name)
  return until(
    async () => {
      const body = await fetchFrom(cluster, from, url)
      if (!names.includes(body)) throw new Error(body)
      return body
    },
    { what: `${url} to answer ${from.metadata.name}`, deadlineMs: 60_000, everyMs: 200 }
  )
}

/** Every pod fetches from every pod by address. One line a pod; `lost` names what did not answer. */
export async function matrix(
  cluster: KubeCluster,
  pods: readonly Pod[]
): Promise<{ readonly text: string; readonly lost: readonly string[] }> {
  const lost: string[] = []
  const label = ({ metadata, spec }: Pod) => `${metadata.name} on ${spec.nodeName}`
  const width = Math.max(...pods.map((pod) => label(pod).length))
  const lines: string[] = []
  for (const from of pods) {
    const cells: string[] = []
    for (const to of pods) {
      const body = await fetchFrom(cluster, from, `http://${hostOf(to.status.podIP)}:${webPort}/`)
      const isRight = body === to.metadata.name
      if (!isRight) lost.push(`${label(from)} → ${label(to)} (${to.status.podIP}): ${body}`)
      cells.push((isRight ? 'yes' : 'NO').padEnd(String(to.status.podIP).length))
    }
    lines.push(`${label(from).padEnd(width)}  ${cells.join('  ')}`)
  }
  const head = `${''.padEnd(width)}  ${pods.map(({ status }) => status.podIP).join('  ')}`
  return { text: [head, ...lines].join('\n'), lost }
}

/** Waits until nothing is lost, and returns the table. */
export async function reachEachOther(cluster: KubeCluster, pods: readonly Pod[]): Promise<string> {
  const whole = async () => {
    const { text, lost } = await matrix(cluster, pods)
    if (lost.length > 0) throw new Error(lost.join('\n'))
    return text
  }
  return until(whole, { what: 'every pod to reach every pod', deadlineMs: 60_000 })
}

function hostOf(ip = ''): string {
  return ip.includes(':') ? `[${ip}]` : ip
}

const corednsImage = 'localhost/weft/coredns:1'

/** The archive of an image with the CoreDNS of scripts/kube-parts. */
export function corednsArchive(directory: string): Promise<string> {
  mkdirSync(join(directory, 'coredns'), { recursive: true })
  return imageArchive(join(directory, 'coredns'), {
    name: corednsImage,
    files: { coredns: part('coredns') },
    command: ['/coredns']
  })
}

const corefile = `.:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    cache 5
    loop
    loadbalance
}
`

/**
 * The cluster's names, as kubeadm installs them, with one replica. `address` is the service's, which kubelet tells
 * pods.
 */
export function coredns(address: string): readonly object[] {
  const labels = { 'k8s-app': 'kube-dns' }
  const inSystem = (name: string) => ({ name, namespace: 'kube-system' })
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: inSystem('coredns') },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'coredns' },
      rules: [
        { apiGroups: [''], resources: ['endpoints', 'services', 'pods', 'namespaces'], verbs: ['list', 'watch'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] }
      ]
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'coredns' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'coredns' },
      subjects: [{ kind: 'ServiceAccount', ...inSystem('coredns') }]
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata: inSystem('coredns'), data: { Corefile: corefile } },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { ...inSystem('kube-dns'), labels },
      spec: {
        clusterIP: address,
        selector: labels,
        ports: [
          { name: 'dns', port: 53, protocol: 'UDP' },
          { name: 'dns-tcp', port: 53, protocol: 'TCP' }
        ]
      }
    },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: inSystem('coredns'),
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: 'coredns',
            dnsPolicy: 'Default',
            containers: [
              {
                name: 'coredns',
                image: corednsImage,
                imagePullPolicy: 'Never',
                command: ['/coredns', '-conf', '/etc/coredns/Corefile'],
                volumeMounts: [{ name: 'config', mountPath: '/etc/coredns', readOnly: true }],
                readinessProbe: { httpGet: { port: 8181, path: '/ready' }, periodSeconds: 1, timeoutSeconds: 5 }
              }
            ],
            volumes: [{ name: 'config', configMap: { name: 'coredns' } }]
          }
        }
      }
    }
  ]
}
