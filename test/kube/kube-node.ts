// A real node on a host of the lab: containerd with runc, kubelet and kube-proxy, all in that host's network and
// mounts, pods in control groups that go with the lab.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Containerd } from '../lab/containerd.ts'
import type { Host } from '../lab/host.ts'
import { Place } from '../lab/lab-scene.ts'
import { type Background, until } from '../lab/run.ts'
import { isReady, type Pod } from './api.ts'
import type { ControlPlane } from './control-plane.ts'
import { part } from './parts.ts'

export interface KubeNodeOptions {
  readonly name?: string
  /**
   * Which link of the lab the node is on; nodes of different segments reach each other through a router. 0 when absent.
   */
  readonly segment?: number
  /** OCI archives that containerd shall have besides busybox. */
  readonly images?: readonly string[]
  /** kube-proxy, in this mode; 'iptables' when absent, false for none. */
  readonly proxy?: 'iptables' | 'nftables' | false
}

/** Where kubelet looks for static pods. */
export const manifests = '/run/kubernetes/manifests'

/** kubelet sets these of the machine, which no namespace holds: it is shown what it wants to see. */
const tunables: Readonly<Record<string, string>> = {
  'vm/overcommit_memory': '1',
  'vm/panic_on_oom': '0',
  'kernel/panic': '10',
  'kernel/panic_on_oops': '1',
  'kernel/keys/root_maxkeys': '1000000',
  'kernel/keys/root_maxbytes': '25000000'
}

/** What a machine has and a host of the lab has not: shared mounts, places of its own for programs, state and logs. */
const preparation = `
mount --make-rshared /
for path in /opt/cni /var/lib/kubelet /var/log; do mkdir -p $path; mount -t tmpfs -o mode=755 tmpfs $path; mount --make-shared $path; done
mkdir -p /opt/cni/bin ${manifests} /var/log/pods /var/log/containers
echo 'nameserver 127.0.0.1' > /run/kubernetes/resolv.conf
tunable() { mkdir -p /run/tunables; file=/run/tunables/$(echo $1 | tr / .); echo $2 > $file; mount --bind $file /proc/sys/$1; }
${Object.entries(tunables)
  .map(([name, value]) => `tunable ${name} ${value}`)
  .join('\n')}
`

export class KubeNode implements AsyncDisposable {
  readonly plane: ControlPlane
  readonly host: Host
  readonly containerd: Containerd
  readonly #programs = new Map<'kubelet' | 'kube-proxy', Background>()

  private constructor(plane: ControlPlane, host: Host, containerd: Containerd) {
    this.plane = plane
    this.host = host
    this.containerd = containerd
  }

  /** A new host that has registered itself as a node. It is Ready only once it has a pod network. */
  static async start(plane: ControlPlane, options: KubeNodeOptions = {}): Promise<KubeNode> {
    const { name, segment = 0, proxy = 'iptables' } = options
    const host = await plane.lab.addHost({ segment, forward: true, ...(name !== undefined && { name }) })
    await host.sh(preparation)
    const containerd = await Containerd.start(host, {
      list: null,
      binDir: '/opt/cni/bin',
      snapshotter: snapshotterOf(plane.lab.directory)
    })
    const node = new KubeNode(plane, host, containerd)
    for (const archive of options.images ?? []) await containerd.importImages(archive)
    await node.#writeKubelet()
    node.startKubelet()
    if (proxy) await node.#startProxy(proxy)
    await node.registered()
    return node
  }

  get name(): string {
    return this.host.name
  }

  log(name: 'kubelet' | 'kube-proxy'): string {
    return this.#programs.get(name)?.text() ?? ''
  }

  #file(name: string): string {
    return join(this.plane.lab.directory, `kubelet-${this.name}`, name)
  }

  async #writeKubelet(): Promise<void> {
    const { plane, host, name } = this
    mkdirSync(this.#file('.'), { recursive: true, mode: 0o700 })
    const group = `/${plane.lab.name}/${name}`
    makeControlGroups(group)
    const config = {
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      kind: 'KubeletConfiguration',
      authentication: {
        anonymous: { enabled: false },
        webhook: { enabled: true },
        x509: { clientCAFile: plane.authority.ca }
      },
      authorization: { mode: 'Webhook' },
      clusterDNS: [plane.dnsAddress],
      clusterDomain: 'cluster.local',
      resolvConf: '/run/kubernetes/resolv.conf',
      containerRuntimeEndpoint: `unix://${this.containerd.directory}/sock`,
      staticPodPath: manifests,
      fileCheckFrequency: '1s',
      nodeStatusUpdateFrequency: '2s',
      cgroupDriver: 'cgroupfs',
      cgroupRoot: group,
      failCgroupV1: false,
      failSwapOn: false,
      // Where CAP_SYS_RESOURCE is missing nothing may be made less likely to be killed than it is.
      oomScoreAdj: 0,
      // The machine's disk and memory belong to others as well: their use must not evict pods of a test.
      evictionHard: { 'memory.available': '1Mi' },
      imageGCHighThresholdPercent: 100,
      imageGCLowThresholdPercent: 99,
      volumePluginDir: '/var/lib/kubelet/volumeplugins',
      shutdownGracePeriod: '0s',
      registerWithTaints: [],
      logging: { verbosity: 2 }
    }
    writeFileSync(this.#file('config.json'), JSON.stringify(config))
    const kubeconfig = await plane.kubeconfig(`kubelet-${name}`, `system:node:${name}`, ['system:nodes'])
    this.#kubeletArgs = [
      `--config=${this.#file('config.json')}`,
      `--kubeconfig=${kubeconfig}`,
      `--hostname-override=${name}`,
      `--node-ip=${host.address}`,
      '--root-dir=/var/lib/kubelet',
      '--cert-dir=/var/lib/kubelet/pki'
    ]
  }

  #kubeletArgs: readonly string[] = []

  startKubelet(): void {
    this.#programs.set('kubelet', this.host.spawn(part('kubelet'), this.#kubeletArgs, { name: 'kubelet' }))
  }

  /** Ends kubelet; containers go on. */
  async stopKubelet(): Promise<void> {
    await this.#programs.get('kubelet')?.stop(5_000)
  }

  async #startProxy(mode: 'iptables' | 'nftables'): Promise<void> {
    const { plane, host, name } = this
    const kubeconfig = await plane.kubeconfig(`kube-proxy-${name}`, 'system:kube-proxy')
    const args = [
      ...[`--kubeconfig=${kubeconfig}`, `--hostname-override=${name}`, `--proxy-mode=${mode}`],
      ...[`--cluster-cidr=${plane.clusterCidr}`, '--metrics-bind-address=127.0.0.1:10249'],
      // Connection tracking's size and times are the machine's.
      ...[
        '--conntrack-max-per-core=0',
        '--conntrack-tcp-timeout-established=0s',
        '--conntrack-tcp-timeout-close-wait=0s'
      ]
    ]
    this.#programs.set('kube-proxy', host.spawn(part('kube-proxy'), args, { name: 'kube-proxy' }))
  }

  /** Waits until the API server knows the node. Rejects at once, with the log, when kubelet ends instead. */
  async registered(): Promise<void> {
    await this.#kubeletSees('to register', () => this.plane.api.node(this.name))
  }

  async ready(deadlineMs = 180_000): Promise<void> {
    await this.#kubeletSees('to be Ready', async () => isReady(await this.plane.api.node(this.name)), deadlineMs)
  }

  async #kubeletSees(what: string, condition: () => Promise<unknown>, deadlineMs = 120_000): Promise<void> {
    const kubelet = () => this.#programs.get('kubelet')
    const seen = async () => kubelet()?.ended ?? (await condition())
    await until(seen, { what: `node ${this.name} ${what}`, deadlineMs, everyMs: 200 }).catch((cause: unknown) => {
      throw new Error(`node ${this.name}: in vain waited for it ${what}\n${this.log('kubelet').slice(-4000)}`, {
        cause
      })
    })
    if (kubelet()?.ended) throw new Error(`kubelet on ${this.name} ended:\n${this.log('kubelet').slice(-4000)}`)
  }

  /** Puts a static pod on the node, which kubelet runs without asking an API server. */
  async staticPod(name: string, pod: object): Promise<void> {
    const path = `${manifests}/${name}.json`
    await this.host.sh(`cat > ${path}.new <<'END'\n${JSON.stringify(pod)}\nEND\nmv ${path}.new ${path}`)
  }

  /** The network of a running pod of this node, for programs of the machine: ping, nc. */
  async place(pod: Pod): Promise<Place> {
    return new Place(this.host.owner, `${this.name}-${pod.metadata.name}`, [
      `--net=${this.host.path(`/proc/${await this.pidOf(pod)}/ns/net`)}`
    ])
  }

  /** Process id of its first container, as programs on this node see it. */
  async pidOf(pod: Pod): Promise<string> {
    const id = pod.status.containerStatuses?.[0]?.containerID?.replace('containerd://', '')
    if (!id) throw new Error(`pod ${pod.metadata.name} has no container yet`)
    const words = ['--address', `${this.containerd.directory}/sock`, '--namespace', 'k8s.io', 'tasks', 'list']
    const { stdout } = await this.host.exec('ctr', words)
    const pid = new RegExp(`^${id}\\s+(\\d+)\\s`, 'm').exec(stdout)?.[1]
    if (pid === undefined) throw new Error(`container ${id} of ${pod.metadata.name} does not run on ${this.name}`)
    return pid
  }

  /** kubelet and kube-proxy end; containers and their mounts go with the lab. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#programs.values()].map((program) => program.stop(3_000)))
    await this.containerd.stop()
  }
}

/** Overlays share layers among containers, but do not lie upon another overlay, which the disk of a container is. */
function snapshotterOf(directory: string): 'native' | 'overlayfs' {
  if (!/^nodev\toverlay$/m.test(readFileSync('/proc/filesystems', 'utf8'))) return 'native'
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, at = '']) => at === '/' || directory === at || directory.startsWith(`${at}/`))
    .sort(([, a = ''], [, b = '']) => b.length - a.length)
  return mounts[0]?.[2] === 'overlay' ? 'native' : 'overlayfs'
}

/**
 * Makes a group in each hierarchy: kubelet wants the one above its pods' to be there, and the lab removes what is under
 * its name.
 */
function makeControlGroups(group: string): void {
  const root = '/sys/fs/cgroup'
  const hierarchies = existsSync(join(root, 'cgroup.controllers'))
    ? [root]
    : readdirSync(root).map((name) => join(root, name))
  for (const hierarchy of hierarchies) {
    let path = hierarchy
    for (const step of group.split('/').filter((name) => name !== '')) {
      const above = path
      path = join(path, step)
      mkdirSync(path, { recursive: true })
      // A group of cpuset is born without processors and memory, and takes no process until it has some
      // (cgroup-v1/cpusets.rst).
      if (hierarchy.endsWith('/cpuset'))
        for (const file of ['cpuset.cpus', 'cpuset.mems'])
          writeFileSync(join(path, file), readFileSync(join(above, file)))
    }
  }
}
