// A real API server on loopback without hosts, for tests of the store alone: an etcd, one kube-apiserver with RBAC, and
// a TLS relay that can misbehave for it.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, request, type Server } from 'node:https'
import { createServer as createPlain } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EtcdAlone } from '../lab/etcd-alone.ts'
import { Background } from '../lab/run.ts'
import { Api } from './api.ts'
import { Authority, type KeyPair } from './authority.ts'
import { part } from './parts.ts'

export class ApiAlone implements AsyncDisposable {
  readonly directory: string
  readonly authority: Authority
  readonly api: Api
  readonly port: number
  readonly etcd: EtcdAlone
  readonly #server: KeyPair
  #program: Background | undefined
  #proxy: Background | undefined
  #runs = 0

  private constructor(directory: string, authority: Authority, server: KeyPair, etcd: EtcdAlone, port: number) {
    this.directory = directory
    this.authority = authority
    this.#server = server
    this.etcd = etcd
    this.port = port
    this.api = new Api(join(directory, 'api.sock'))
  }

  static async start(): Promise<ApiAlone> {
    const directory = mkdtempSync(join(tmpdir(), 'weft-api-'))
    const authority = await Authority.make(join(directory, 'pki'))
    const server = await authority.issue('server', { user: 'server', names: ['IP:127.0.0.1', 'DNS:localhost'] })
    const alone = new ApiAlone(directory, authority, server, await EtcdAlone.start(), await freePort())
    await alone.run()
    return alone
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }

  /** Starts the API server and waits until it is ready. */
  async run(): Promise<void> {
    const pki = this.authority
    const args = [
      ...['--etcd-servers', this.etcd.endpoints.join(',')],
      ...['--bind-address=127.0.0.1', `--secure-port=${this.port}`, '--endpoint-reconciler-type=none'],
      ...[`--tls-cert-file=${this.#server.cert}`, `--tls-private-key-file=${this.#server.key}`],
      ...[`--client-ca-file=${pki.ca}`, '--authorization-mode=RBAC', '--anonymous-auth=false'],
      ...['--service-cluster-ip-range=10.96.0.0/16', '--service-account-issuer=https://kubernetes.default.svc'],
      ...[`--service-account-key-file=${pki.serviceAccountPublicKey}`],
      ...[`--service-account-signing-key-file=${pki.serviceAccountKey}`],
      // What is deleted must not be believed for long.
      ...['--disable-admission-plugins=ServiceAccount', '--profiling=false']
    ]
    this.#program = new Background('kube-apiserver', part('kube-apiserver'), args, {
      logPath: join(this.directory, `apiserver-${++this.#runs}.log`)
    })
    const program = this.#program
    if (this.#proxy === undefined) {
      const admin = await pki.kubeconfig('admin', this.url, { user: 'admin', groups: ['system:masters'] })
      const words = ['--kubeconfig', admin, 'proxy', '--unix-socket', join(this.directory, 'api.sock')]
      this.#proxy = new Background('kubectl-proxy', part('kubectl'), words, {
        logPath: join(this.directory, 'proxy.log')
      })
    }
    const ended = program.exited().then(() => Promise.reject(new Error('it ended')))
    await Promise.race([this.api.ready(), ended]).catch((cause: unknown) => {
      throw new Error(`the API server is not ready:\n${program.text().slice(-3000)}`, { cause })
    })
  }

  /** Ends the API server; with SIGTERM it would wait for its watches. */
  async stop(): Promise<void> {
    this.#program?.kill('SIGKILL')
    await this.#program?.exited()
  }

  /** A kubeconfig for a user with a client certificate. */
  kubeconfig(
    user: string,
    options: { readonly url?: string; readonly groups?: readonly string[] } = {}
  ): Promise<string> {
    return this.authority.kubeconfig(user, options.url ?? this.url, { user, groups: options.groups ?? [] })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#proxy?.stop()
    await this.stop()
    await this.etcd[Symbol.asyncDispose]()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** What a `Front` answers instead of the API server; `undefined` lets the request pass. */
export type Instead = (
  request: IncomingMessage
) => { readonly status: number; readonly headers?: Record<string, string>; readonly body?: object } | undefined

/**
 * A TLS server in front of the API server, with a certificate of its own: passes on what callers with a token ask,
 * unless it is told to answer itself.
 */
export class Front implements AsyncDisposable {
  /** Each request as `GET /api/v1/nodes?…`. */
  readonly seen: string[] = []
  instead: Instead = () => undefined
  readonly #target: ApiAlone
  readonly #server: Server

  private constructor(target: ApiAlone, { cert, key }: KeyPair) {
    this.#target = target
    this.#server = createServer({ cert: readFileSync(cert), key: readFileSync(key) }, (from, to) =>
      this.#pass(from, to)
    )
  }

  /** The certificate is of this authority, the API server's own when absent. */
  static async open(target: ApiAlone, authority = target.authority): Promise<Front> {
    const front = new Front(target, await authority.issue('front', { user: 'front', names: ['IP:127.0.0.1'] }))
    front.#server.listen(0, '127.0.0.1')
    await new Promise((resolve) => front.#server.once('listening', resolve))
    return front
  }

  get url(): string {
    return `https://127.0.0.1:${(this.#server.address() as { port: number }).port}`
  }

  #pass(from: IncomingMessage, to: ServerResponse): void {
    this.seen.push(`${from.method} ${from.url}`)
    const answer = this.instead(from)
    if (answer !== undefined) {
      from.resume()
      to.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers })
      to.end(JSON.stringify(answer.body ?? {}))
      return
    }
    const onward = request({
      ...{ host: '127.0.0.1', port: this.#target.port, method: from.method, path: from.url, headers: from.headers },
      ca: readFileSync(this.#target.authority.ca)
    })
    onward.on('response', (response) => {
      to.writeHead(response.statusCode ?? 500, response.headers)
      to.flushHeaders()
      response.pipe(to)
      response.on('error', () => to.destroy())
    })
    onward.on('error', () => to.destroy())
    to.on('close', () => onward.destroy())
    from.pipe(onward)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve))
    this.#server.closeAllConnections()
    await closed
  }
}

async function freePort(): Promise<number> {
  const server = createPlain().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
