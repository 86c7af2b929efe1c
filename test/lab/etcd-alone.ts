// Real etcd on loopback without hosts, for tests of the store alone: one or three members, TLS and users, and a relay
// that can be cut or frozen.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Certificates, makeCertificates, signCertificate } from './certificates.ts'
import { run, until } from './run.ts'

type Member = { readonly client: number; readonly peer: number; process: ChildProcess | undefined }

export class EtcdAlone implements AsyncDisposable {
  readonly #folder: string
  readonly #members: readonly Member[]
  readonly certificates: Certificates | undefined
  /** Put before every command once authentication is on. */
  #user: readonly string[] = []

  readonly #flags: readonly string[]

  private constructor(
    folder: string,
    members: readonly Member[],
    certificates: Certificates | undefined,
    flags: readonly string[]
  ) {
    this.#folder = folder
    this.#members = members
    this.certificates = certificates
    this.#flags = flags
  }

  static async start(
    options: { readonly members?: 1 | 3; readonly tls?: boolean; readonly flags?: readonly string[] } = {}
  ): Promise<EtcdAlone> {
    const folder = mkdtempSync(join(tmpdir(), 'weft-etcd-'))
    const ports = await freePorts(2 * (options.members ?? 1))
    const members = Array.from({ length: ports.length / 2 }, (_, at) => ({
      client: ports[2 * at]!,
      peer: ports[2 * at + 1]!,
      process: undefined
    }))
    const certificates = options.tls ? await makeCertificates(join(folder, 'tls'), ['127.0.0.1']) : undefined
    const etcd = new EtcdAlone(folder, members, certificates, options.flags ?? [])
    for (let at = 0; at < members.length; at++) etcd.run(at)
    await etcd.ready()
    return etcd
  }

  /** Signs the certificate of the server or of the client again, valid for so many days from now; below 0 it has expired. */
  async certify(name: 'server' | 'client', days: number): Promise<void> {
    await signCertificate(join(this.#folder, 'tls'), name, days)
  }

  /** New authority, certificates and keys, in the files of the old ones. */
  async rotateCertificates(): Promise<void> {
    await makeCertificates(join(this.#folder, 'tls'), ['127.0.0.1'])
  }

  get endpoints(): readonly string[] {
    return this.#members.map(({ client }) => `${this.certificates ? 'https' : 'http'}://127.0.0.1:${client}`)
  }

  /** The port of a member's client side. */
  port(at = 0): number {
    return this.#members[at]!.client
  }

  /** Starts a member with the data it has. */
  run(at = 0): void {
    const member = this.#members[at]!
    const client = this.endpoints[at]!
    const peer = `http://127.0.0.1:${member.peer}`
    const tls = this.certificates && [
      '--cert-file',
      this.certificates.serverCert,
      '--key-file',
      this.certificates.serverKey,
      '--client-cert-auth',
      '--trusted-ca-file',
      this.certificates.ca
    ]
    const args = [
      '--name',
      `m${at}`,
      '--data-dir',
      join(this.#folder, `data${at}`),
      '--listen-client-urls',
      client,
      '--advertise-client-urls',
      client
    ]
    args.push(
      '--listen-peer-urls',
      peer,
      '--initial-advertise-peer-urls',
      peer,
      '--unsafe-no-fsync',
      '--log-level',
      'error',
      '--logger',
      'zap'
    )
    args.push('--initial-cluster', this.#members.map((one, n) => `m${n}=http://127.0.0.1:${one.peer}`).join(','))
    member.process = spawn('etcd', [...args, ...(tls ?? []), ...this.#flags], {
      stdio: 'ignore',
      env: { ...process.env, ETCD_UNSUPPORTED_ARCH: process.arch }
    })
  }

  /** Ends a member, and with `forget` deletes what it knew. */
  async stop(at = 0, options: { readonly forget?: boolean; readonly signal?: NodeJS.Signals } = {}): Promise<void> {
    const child = this.#members[at]!.process
    this.#members[at]!.process = undefined
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill(options.signal ?? 'SIGKILL')
      await ended
    }
    if (options.forget) rmSync(join(this.#folder, `data${at}`), { recursive: true, force: true })
  }

  /** SIGSTOP makes a member hang, SIGCONT wakes it. */
  signal(at: number, signal: NodeJS.Signals): void {
    this.#members[at]!.process?.kill(signal)
  }

  /** The index of the leader, as the members say that run. */
  async leader(): Promise<number> {
    const { stdout } = await this.ctl(['endpoint', 'status', '-w', 'json'], false)
    // Member ids need more than 53 bits: read as text.
    const all = JSON.parse(stdout.replace(/"(member_id|leader)":(\d+)/g, '"$1":"$2"')) as {
      readonly Endpoint: string
      readonly Status: { readonly header: { readonly member_id: string }; readonly leader: string }
    }[]
    const found = all.find(({ Status }) => Status.header.member_id === Status.leader)
    return this.endpoints.indexOf(found?.Endpoint ?? '')
  }

  async ready(): Promise<void> {
    await until(async () => (await this.ctl(['put', '/ready', 'yes'], false)).code === 0, {
      what: 'an etcd that takes a write',
      everyMs: 50
    })
  }

  async ctl(args: readonly string[], check = true): ReturnType<typeof run> {
    const tls = this.certificates
      ? ['--cacert', this.certificates.ca, '--cert', this.certificates.cert, '--key', this.certificates.key]
      : []
    return run('etcdctl', ['--endpoints', this.endpoints.join(','), ...tls, ...this.#user, ...args], {
      check,
      env: { ETCDCTL_API: '3' }
    })
  }

  /** Switches users on: root, and one `weft` that may do everything under the prefix. */
  async requireUsers(prefix: string): Promise<void> {
    await this.ctl(['user', 'add', 'root:rootpass'])
    await this.ctl(['user', 'grant-role', 'root', 'root'])
    await this.ctl(['role', 'add', 'weft'])
    await this.ctl(['role', 'grant-permission', 'weft', '--prefix=true', 'readwrite', `${prefix}/`])
    await this.ctl(['user', 'add', 'weft:secret'])
    await this.ctl(['user', 'grant-role', 'weft', 'weft'])
    await this.ctl(['auth', 'enable'])
    this.#user = ['--user', 'root:rootpass']
  }

  async get(
    key: string
  ): Promise<{ readonly value: string; readonly lease: string; readonly modified: number } | undefined> {
    const { stdout } = await this.ctl(['get', key, '-w', 'json'])
    // Lease ids need more than 53 bits: read as text.
    const { kvs } = JSON.parse(stdout.replace(/"lease":(\d+)/g, '"lease":"$1"')) as {
      kvs?: { value: string; lease?: string; mod_revision: number }[]
    }
    const found = kvs?.[0]
    return (
      found && {
        value: Buffer.from(found.value, 'base64').toString(),
        lease: found.lease ?? '0',
        modified: found.mod_revision
      }
    )
  }

  /** Forgets all revisions before the present one. */
  async compact(): Promise<void> {
    const { stdout } = await this.ctl(['get', '/ready', '-w', 'json'])
    const { header } = JSON.parse(stdout) as { header: { revision: number } }
    await this.ctl(['compact', String(header.revision)])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (let at = 0; at < this.#members.length; at++) await this.stop(at)
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/**
 * Passes bytes to a port on loopback until it is cut (connections break, new ones are refused) or frozen (nothing
 * passes, nothing breaks).
 */
export class Relay implements AsyncDisposable {
  readonly #target: number
  readonly #sockets = new Set<Socket>()
  #server: Server | undefined
  port = 0

  constructor(target: number) {
    this.#target = target
  }

  async open(): Promise<void> {
    const server = createServer((near) => {
      const far = connect(this.#target, '127.0.0.1')
      for (const [one, other] of [
        [near, far],
        [far, near]
      ] as const) {
        this.#sockets.add(one)
        one.pipe(other)
        one.on('error', () => undefined)
        one.on('close', () => {
          this.#sockets.delete(one)
          other.destroy()
        })
      }
    })
    server.listen(this.port, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    this.port = (server.address() as { port: number }).port
    this.#server = server
  }

  async cut(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = new Promise((resolve) => server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  /** Connections that exist stay open and carry nothing any more; new ones work. */
  freeze(): void {
    for (const socket of this.#sockets) {
      socket.unpipe()
      socket.pause()
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cut()
  }
}

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'))
  await Promise.all(servers.map((server) => new Promise((resolve) => server.once('listening', resolve))))
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
