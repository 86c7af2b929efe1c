// Real etcd in the lab: one or three members, each on a host of its own, with TLS or users when asked for.
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Certificates, makeCertificates } from './certificates.ts'
import type { Host } from './host.ts'
import type { Lab } from './hosts.ts'
import { type Background, type Finished, type RunOptions, until } from './run.ts'

export interface EtcdOptions {
  /** 1 when absent. */
  readonly members?: 1 | 3
  /** The hosts of the members; new hosts etcd1, … on segment 0 when absent. */
  readonly hosts?: readonly Host[]
  /** Certificates for servers and clients; clients without one are refused. */
  readonly tls?: boolean
  /** User root with this password; clients without it are refused. */
  readonly auth?: { readonly password: string }
  /** Keep the data in memory (each member's /run), so that the disk's speed stays out of measurements. */
  readonly memory?: boolean
}

class Member {
  readonly name: string
  readonly host: Host
  readonly data: string
  readonly #args: readonly string[]
  #program: Background | undefined

  constructor(name: string, host: Host, data: string, args: readonly string[]) {
    this.name = name
    this.host = host
    this.data = data
    this.#args = args
  }

  start(): void {
    mkdirSync(this.host.path(this.data), { recursive: true, mode: 0o700 })
    const args = ['--name', this.name, '--data-dir', this.data, ...this.#args]
    this.#program = this.host.spawn('etcd', args, { name: this.name, env: { ETCD_UNSUPPORTED_ARCH: process.arch } })
  }

  /** Ends this member: SIGTERM, or the signal given. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#program?.kill(signal)
    await this.#program?.stop(1_000)
  }

  get log(): string {
    return this.#program?.text() ?? ''
  }
}

export class Etcd implements AsyncDisposable {
  readonly members: readonly Member[]
  readonly endpoints: readonly string[]
  /** Paths of CA, client certificate and key, when TLS is on. */
  readonly certificates: Certificates | undefined
  readonly #options: EtcdOptions
  #authOn = false

  private constructor(members: readonly Member[], certificates: Certificates | undefined, options: EtcdOptions) {
    this.members = members
    this.certificates = certificates
    this.#options = options
    this.endpoints = members.map(({ host }) => `${certificates ? 'https' : 'http'}://${host.address}:2379`)
  }

  static async start(lab: Lab, options: EtcdOptions = {}): Promise<Etcd> {
    const count = options.members ?? 1
    const hosts = [...(options.hosts ?? [])]
    for (let n = hosts.length; n < count; n++) hosts.push(await lab.addHost({ name: `etcd${n + 1}` }))
    const used = hosts.slice(0, count)
    const certificates = options.tls
      ? await makeCertificates(join(lab.directory, 'etcd-tls'), ['127.0.0.1', ...used.map(({ address }) => address)])
      : undefined
    const peers = used.map((host) => `${host.name}=http://${host.address}:2380`)
    const members = used.map((host) => {
      const data = options.memory ? '/run/etcd' : join(lab.directory, `etcd-${host.name}`)
      return new Member(host.name, host, data, memberArgs(host, peers, certificates))
    })
    const etcd = new Etcd(members, certificates, options)
    for (const member of members) member.start()
    await etcd.ready()
    if (options.auth) {
      await etcd.ctl(['user', 'add', `root:${options.auth.password}`])
      await etcd.ctl(['user', 'grant-role', 'root', 'root'])
      await etcd.ctl(['auth', 'enable'])
      etcd.#authOn = true
    }
    return etcd
  }

  /** Endpoints as --etcd-endpoints takes them. */
  get endpointList(): string {
    return this.endpoints.join(',')
  }

  /** The same over IPv6, in a lab that has it. */
  get endpointList6(): string {
    return this.members.map(({ host }) => `http://[${host.address6}]:2379`).join(',')
  }

  /** Runs etcdctl (API 3) against all members. */
  ctl(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
    const { certificates, endpointList } = this
    const flags = ['--endpoints', endpointList]
    if (certificates) flags.push('--cacert', certificates.ca, '--cert', certificates.cert, '--key', certificates.key)
    if (this.#authOn) flags.push('--user', `root:${this.#options.auth?.password}`)
    // From a member that runs, if there is one; the others may be stopped or cut off.
    const host = this.members[0]?.host
    if (!host) throw new Error('an etcd without members')
    return host.exec('etcdctl', [...flags, ...args], { ...options, env: { ETCDCTL_API: '3', ...options.env } })
  }

  async put(key: string, value: string): Promise<void> {
    await this.ctl(['put', key], { input: value })
  }

  /** All keys under a prefix with their values. */
  async list(prefix: string): Promise<ReadonlyMap<string, string>> {
    const { stdout } = await this.ctl(['get', '--prefix', prefix, '-w', 'json'])
    const { kvs = [] } = JSON.parse(stdout) as {
      readonly kvs?: readonly { readonly key: string; readonly value: string }[]
    }
    const text = (base64: string) => Buffer.from(base64, 'base64').toString()
    return new Map(kvs.map(({ key, value }) => [text(key), text(value)]))
  }

  async revision(): Promise<number> {
    const { stdout } = await this.ctl(['get', 'nothing', '-w', 'json'])
    return (JSON.parse(stdout) as { readonly header: { readonly revision: number } }).header.revision
  }

  /** Compacts at the present revision: watches from before it are cancelled. */
  async compact(): Promise<void> {
    await this.ctl(['compact', String(await this.revision())])
  }

  /** Stops all members. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await Promise.all(this.members.map((member) => member.stop(signal)))
  }

  /** Starts all members again; with `empty` without what they knew. */
  async restart(options: { readonly empty?: boolean } = {}): Promise<void> {
    await this.stop()
    if (options.empty) {
      this.#authOn = false
      for (const { data, host } of this.members) rmSync(host.path(data), { recursive: true, force: true })
    }
    for (const member of this.members) member.start()
    await this.ready()
  }

  /** Resolves when the cluster takes a write. */
  async ready(): Promise<void> {
    const healthy = async () => (await this.ctl(['endpoint', 'health'], { check: false, timeoutMs: 6_000 })).code === 0
    const logs = () => this.members.map(({ name, log }) => `${name}: ${log.slice(-500)}`).join('\n')
    await until(healthy, { what: 'a healthy etcd', everyMs: 50 }).catch((cause: unknown) => {
      throw new Error(`etcd did not become healthy\n${logs()}`, { cause })
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

function memberArgs(host: Host, peers: readonly string[], certificates: Certificates | undefined): readonly string[] {
  const client = `${certificates ? 'https' : 'http'}://${host.address}:2379`
  const client6 = host.address6 === undefined ? '' : `,${client.replace(host.address, `[${host.address6}]`)}`
  const peer = `http://${host.address}:2380`
  const tls = certificates
    ? [
        '--cert-file',
        certificates.serverCert,
        '--key-file',
        certificates.serverKey,
        '--client-cert-auth',
        '--trusted-ca-file',
        certificates.ca
      ]
    : []
  return [
    '--listen-client-urls',
    client + client6,
    '--advertise-client-urls',
    client,
    '--listen-peer-urls',
    peer,
    '--initial-advertise-peer-urls',
    peer,
    '--initial-cluster',
    peers.join(','),
    '--initial-cluster-state',
    'new',
    '--logger',
    'zap',
    // Three members on two busy cores: elections must not start because a heartbeat came late.
    '--heartbeat-interval',
    '100',
    '--election-timeout',
    '1000',
    ...tls
  ]
}
