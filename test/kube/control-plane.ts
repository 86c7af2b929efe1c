// A real control plane on a host of the lab: etcd, kube-apiserver with RBAC and certificates, controller manager with
// node CIDRs, scheduler.
import { join } from 'node:path'
import type { Host } from '../lab/host.ts'
import type { Lab } from '../lab/hosts.ts'
import { type Background, type Finished, type RunOptions, until } from '../lab/run.ts'
import { Api } from './api.ts'
import { Authority } from './authority.ts'
import { type Part, part } from './parts.ts'

export interface ControlPlaneOptions {
  /**
   * Of pods; each node gets a /24 of it. '10.244.0.0/16' when absent. Both families, separated by a comma, for dual
   * stack.
   */
  readonly clusterCidr?: string
  /** '10.96.0.0/16' when absent. */
  readonly serviceCidr?: string
  /** Arguments added to the API server's. */
  readonly apiArgs?: readonly string[]
  /** Controller manager and scheduler; true when absent. Tests of the store alone need neither. */
  readonly controllers?: boolean
}

/** `await using plane = await ControlPlane.start(lab)`; its host is called control. */
export class ControlPlane implements AsyncDisposable {
  readonly lab: Lab
  readonly host: Host
  readonly authority: Authority
  readonly api: Api
  readonly clusterCidr: string
  readonly serviceCidr: string
  readonly #apiArgs: readonly string[]
  readonly #programs = new Map<string, Background>()
  #admin = ''

  private constructor(lab: Lab, host: Host, authority: Authority, options: ControlPlaneOptions) {
    this.lab = lab
    this.host = host
    this.authority = authority
    this.api = new Api(join(lab.directory, 'api.sock'))
    this.clusterCidr = options.clusterCidr ?? '10.244.0.0/16'
    this.serviceCidr = options.serviceCidr ?? '10.96.0.0/16'
    this.#apiArgs = options.apiArgs ?? []
  }

  static async start(lab: Lab, options: ControlPlaneOptions = {}): Promise<ControlPlane> {
    const host = await lab.addHost({ name: 'control' })
    const authority = await Authority.make(join(lab.directory, 'pki'))
    const plane = new ControlPlane(lab, host, authority, options)
    await plane.#issue()
    plane.#startEtcd()
    await plane.startApi()
    if (options.controllers ?? true) await plane.#startControllers()
    return plane
  }

  /** The API server as nodes reach it. */
  get url(): string {
    return `https://${this.host.address}:6443`
  }

  /** The first address of the services' range, by which pods know the API server. */
  get serviceAddress(): string {
    return String(this.serviceCidr.split(',')[0]).replace(/[^.:]*\/\d+$/, '1')
  }

  /** The service address of the cluster's names, which kubelet writes into pods' resolv.conf. */
  get dnsAddress(): string {
    return this.serviceAddress.replace(/1$/, '10')
  }

  /** Path of the kubeconfig of a member of system:masters. */
  get admin(): string {
    return this.#admin
  }

  kubeconfig(name: string, user: string, groups: readonly string[] = []): Promise<string> {
    return this.authority.kubeconfig(name, this.url, { user, groups })
  }

  kubectl(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    // Its cache of what the API server knows is this lab's own.
    const flags = ['--kubeconfig', this.#admin, '--cache-dir', join(this.lab.directory, 'kubectl')]
    return this.host.exec(part('kubectl'), [...flags, ...args], { timeoutMs: 120_000, ...options })
  }

  /** Applies objects of our own. */
  async apply(...objects: readonly object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects })
    await this.kubectl(['apply', '--filename', '-'], { input })
  }

  /** What a program of the control plane printed. */
  log(name: Part | 'etcd'): string {
    return this.#programs.get(name)?.text() ?? ''
  }

  async #issue(): Promise<void> {
    const { authority, host, serviceAddress } = this
    const own = [`IP:${host.address}`, 'IP:127.0.0.1', 'DNS:localhost']
    const service = [
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local'
    ]
    await Promise.all([
      authority.issue('etcd', { user: 'etcd', names: own }),
      authority.issue('apiserver', {
        user: 'kube-apiserver',
        names: [...own, `IP:${serviceAddress}`, ...service.map((name) => `DNS:${name}`)]
      }),
      authority.issue('apiserver-etcd', { user: 'kube-apiserver' }),
      // As kubeadm does: for logs and exec the API server calls kubelets as somebody who may do that.
      authority.issue('apiserver-kubelet', { user: 'kube-apiserver', groups: ['system:masters'] })
    ])
    this.#admin = await this.kubeconfig('admin', 'admin', ['system:masters'])
  }

  #file(name: string): string {
    return join(this.authority.directory, name)
  }

  #spawn(name: Part, args: readonly string[], as: string = name): Background {
    const program = this.host.spawn(part(name), args, { name: as })
    this.#programs.set(as, program)
    return program
  }

  #startEtcd(): void {
    const url = `https://${this.host.address}:2379`
    const program = this.host.spawn(
      'etcd',
      [
        // In memory: what the disk does to a cluster is nobody's question here.
        ...['--name', 'control', '--data-dir', '/run/etcd'],
        ...['--listen-client-urls', url, '--advertise-client-urls', url],
        ...['--listen-peer-urls', 'http://127.0.0.1:2380', '--initial-advertise-peer-urls', 'http://127.0.0.1:2380'],
        ...['--initial-cluster', 'control=http://127.0.0.1:2380', '--logger', 'zap'],
        ...['--cert-file', this.#file('etcd.crt'), '--key-file', this.#file('etcd.key')],
        ...['--client-cert-auth', '--trusted-ca-file', this.authority.ca]
      ],
      { name: 'etcd', env: { ETCD_UNSUPPORTED_ARCH: process.arch } }
    )
    this.#programs.set('etcd', program)
  }

  /** Starts the API server, again after `stopApi`, unless it runs, and waits until it is ready. */
  async startApi(): Promise<void> {
    const { authority, host } = this
    const earlier = this.#programs.get('kube-apiserver')
    if (earlier !== undefined && earlier.ended === undefined) return
    const program = this.#spawn('kube-apiserver', [
      ...[`--etcd-servers=https://${host.address}:2379`, `--etcd-cafile=${authority.ca}`],
      ...[`--etcd-certfile=${this.#file('apiserver-etcd.crt')}`, `--etcd-keyfile=${this.#file('apiserver-etcd.key')}`],
      ...['--secure-port=6443', '--bind-address=0.0.0.0', `--advertise-address=${host.address}`],
      ...[`--tls-cert-file=${this.#file('apiserver.crt')}`, `--tls-private-key-file=${this.#file('apiserver.key')}`],
      ...[`--client-ca-file=${authority.ca}`, '--authorization-mode=Node,RBAC', '--anonymous-auth=false'],
      ...['--enable-admission-plugins=NodeRestriction', '--allow-privileged=true'],
      ...[`--service-cluster-ip-range=${this.serviceCidr}`],
      ...[`--service-account-key-file=${authority.serviceAccountPublicKey}`],
      ...[`--service-account-signing-key-file=${authority.serviceAccountKey}`],
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--kubelet-client-certificate=${this.#file('apiserver-kubelet.crt')}`,
      `--kubelet-client-key=${this.#file('apiserver-kubelet.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
      ...this.#apiArgs
    ])
    if (!this.#programs.has('proxy')) {
      const socket = join(this.lab.directory, 'api.sock')
      const words = ['--kubeconfig', this.#admin, 'proxy', '--unix-socket', socket]
      this.#spawn('kubectl', words, 'proxy')
    }
    const watching = Promise.race([
      this.api.ready(),
      program.exited().then(() => Promise.reject(new Error('it ended')))
    ])
    await watching.catch((cause: unknown) => {
      throw new Error(`the API server is not ready:\n${program.text().slice(-3000)}`, { cause })
    })
  }

  async stopApi(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const program = this.#programs.get('kube-apiserver')
    program?.kill(signal)
    // It drains its watches for as long as they last.
    await program?.stop(5_000)
  }

  async #startControllers(): Promise<void> {
    const { authority, clusterCidr } = this
    const [manager, scheduler] = await Promise.all([
      this.kubeconfig('controller-manager', 'system:kube-controller-manager'),
      this.kubeconfig('scheduler', 'system:kube-scheduler')
    ])
    this.#spawn('kube-controller-manager', [
      ...[`--kubeconfig=${manager}`, `--authentication-kubeconfig=${manager}`, `--authorization-kubeconfig=${manager}`],
      ...[
        '--allocate-node-cidrs=true',
        `--cluster-cidr=${clusterCidr}`,
        `--service-cluster-ip-range=${this.serviceCidr}`
      ],
      ...['--use-service-account-credentials=true', '--leader-elect=false'],
      ...[`--service-account-private-key-file=${authority.serviceAccountKey}`, `--root-ca-file=${authority.ca}`],
      // A node that stops is noticed in seconds, not in 40.
      ...['--node-monitor-period=1s', '--node-monitor-grace-period=20s']
    ])
    this.#spawn('kube-scheduler', [
      ...[`--kubeconfig=${scheduler}`, `--authentication-kubeconfig=${scheduler}`],
      ...[`--authorization-kubeconfig=${scheduler}`, '--leader-elect=false']
    ])
    // Pods are refused before their namespace has a service account.
    const account = () => this.api.get('/api/v1/namespaces/default/serviceaccounts/default')
    await until(account, { what: 'the service account of the namespace default', deadlineMs: 120_000, everyMs: 100 })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const programs = [...this.#programs.values()].reverse()
    await Promise.all(programs.map((program) => program.stop(2_000)))
  }
}
