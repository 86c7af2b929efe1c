// Connection to etcd over @grpc/grpc-js: one client per member, failover, deadlines, keep-alive, TLS, auth tokens, and
// the conditions they raise. The package etcd3 fails the test "speaks TLS with a client certificate": grpc passes a
// member's IP address to Node as TLS server name, which Node 26 rejects, and etcd3 does not let the caller supply the
// certificate check. It also takes 19 MB more (38 against 19.5).
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import { type ChannelCredentials, Client, type ClientDuplexStream, credentials, Metadata, status } from '@grpc/grpc-js'
import { WeftError } from '../../base/error.ts'
import { withoutPasswords } from '../../base/printable.ts'
import { decode, encode, type Message, type Sent } from '../../base/protobuf.ts'
import type { StoreDeps } from '../../lease/store.ts'
import { type CertificateFault, certificateFault, validityOf } from './certificate-faults.ts'
import { CALLS, type CallName, type Request, type Response } from './messages.ts'
import { type TlsContent, TlsFiles, type TlsPaths } from './tls-files.ts'

export type EtcdOptions = TlsPaths & {
  /** URLs, all http or all https. */
  readonly endpoints: readonly string[]
  /** Without a slash at its end, as `/coreos.com/network`. */
  readonly prefix: string
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly renewMarginMinutes: number
}

export type Stream<N extends CallName> = ClientDuplexStream<Request<N>, Response<N>>

/**
 * Milliseconds: for one call at one member; between keep-alive pings (etcd refuses less than 5 s); for the answer to
 * one.
 */
const DEADLINE = 5_000
const PING = 10_000
const PONG = 5_000
/**
 * Bytes of one message; a watch that catches up can send many events at once. Those are a few hundred KB; a value of
 * megabytes is no lease and no configuration, and must not take the memory of weftd.
 */
const LARGEST_MESSAGE = 16 << 20

/** Cures of the conditions that a failed request raises. */
const CURES = {
  STORE_DENIED:
    'check --etcd-username, --etcd-password, --etcd-certfile, --etcd-keyfile and the rights of their role under --etcd-prefix',
  STORE_FULL:
    'compact and defragment etcd (etcdctl compact REVISION; etcdctl defrag), or raise --quota-backend-bytes; then disarm the alarm: etcdctl alarm disarm',
  STORE_UNREACHABLE: 'check that etcd is running and that this node can reach it (--etcd-endpoints, --etcd-cafile)'
}

const TOO_LARGE =
  'find the value of many megabytes below --etcd-prefix (etcdctl get --prefix --keys-only), and correct or delete it'

const CHANNEL = {
  'grpc.keepalive_time_ms': PING,
  'grpc.keepalive_timeout_ms': PONG,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 5_000,
  'grpc.max_receive_message_length': LARGEST_MESSAGE,
  'grpc.enable_channelz': 0,
  // etcd is inside the cluster: an HTTP proxy for external traffic does not reach it.
  'grpc.enable_http_proxy': 0
}

/** Statuses after which another member may succeed. */
const TRY_ANOTHER: readonly unknown[] = [
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.CANCELLED,
  status.INTERNAL,
  status.UNKNOWN,
  status.RESOURCE_EXHAUSTED
]

/**
 * etcd's own message, without grpc's prefix such as `14 UNAVAILABLE: ` and without its measurements: a condition whose
 * text differs by a millisecond is logged again.
 */
export const text = (error: unknown): string =>
  error instanceof Error
    ? error.message
        .replace(/^\d+ [A-Z_]+: /, '')
        .replace(/ Resolution note: $/, '')
        .replaceAll(/,[\w ]+: \d+\.\d{3}s| after \d+\.\d{3}s/g, '')
        .replaceAll(/[\dA-F]+:(error:[\dA-F]+:SSL routines:[^\n]*)\n? \([-\d]+T[\d:.]+Z\)/g, '$1')
    : String(error)
/** The token has expired or none was sent: a new one may help. */
const needsToken = (error: unknown): boolean =>
  /auth token|revision of auth store is old|user name is empty/.test(text(error))
/** Our credentials are rejected, or none are configured where etcd requires them. */
export const isDenied = (error: unknown): boolean =>
  /permission denied|authentication failed|auth token|user name is empty/.test(text(error))
/** The answer is larger than we take (grpc-js). */
export const isTooLarge = (error: unknown): boolean => /larger than max/.test(text(error))
/** etcd's space quota is used up: it refuses writes until somebody frees space and disarms the alarm. */
const isFull = (error: unknown): boolean => /database space exceeded/.test(text(error))
/** etcd no longer keeps the requested revision: list again. */
const isCompacted = (error: unknown): boolean => /required revision has been compacted/.test(text(error))

export class EtcdConnection implements AsyncDisposable {
  #members: readonly Client[]
  readonly #files: TlsFiles
  readonly #options: EtcdOptions
  readonly #report: StoreDeps['report']
  /** The member that answered last; random at first, to spread the nodes over the members. */
  #preferred: number
  #token: string | undefined
  #authenticating: Promise<void> | undefined

  /** Opens nothing yet. Errors: OPTION_INVALID when a certificate or key can't be read. */
  constructor(options: EtcdOptions, report: StoreDeps['report']) {
    this.#options = options
    this.#report = report
    this.#files = new TlsFiles(options, () => this.reconnect())
    this.#members = this.#clients()
    this.#preferred = Math.floor(Math.random() * this.#members.length)
  }

  /** Closes every connection; new ones are opened on demand. Requests in flight fail and are retried. */
  reconnect(): void {
    const old = this.#members
    this.#members = this.#clients()
    for (const member of old) member.close()
  }

  #clients(): readonly Client[] {
    return this.#options.endpoints.map((endpoint) => memberClient(urlOf(endpoint), this.#files.content))
  }

  /** Where etcd is, for messages. */
  get place(): string {
    return `etcd at ${withoutPasswords(this.#options.endpoints.join(', '))}`
  }

  /**
   * One request, sent to each member in turn until one answers, and once more with a new token if the old one is
   * rejected. `what` completes "… failed". Raises or clears STORE_UNREACHABLE and STORE_DENIED. Errors: STORE_DENIED;
   * STORE_UNREACHABLE for every other failure.
   */
  call<N extends CallName>(what: string, name: N, request: Request<N>): Promise<Response<N>> {
    return this.reported(what, async () => {
      const answer = await this.#authenticated(() => this.#anywhere(name, request))
      // A full etcd still answers what needs no space.
      if (takesSpace(request)) this.#report.clear('STORE_FULL')
      return answer
    })
  }

  /** As `call`, for what nothing depends on: raises and clears no condition. Errors: as etcd or gRPC has them. */
  quietly<N extends CallName>(name: N, request: Request<N>): Promise<Response<N>> {
    return this.#authenticated(() => this.#anywhere(name, request))
  }

  /** Runs a request with the conditions and errors of `call`. */
  async reported<T>(what: string, run: () => Promise<T>): Promise<T> {
    try {
      const answer = await run()
      this.#report.clear('STORE_UNREACHABLE')
      this.#report.clear('STORE_DENIED')
      return answer
    } catch (error) {
      throw this.failed(what, error)
    }
  }

  /**
   * Makes the error of a failed request and raises its condition. A compacted revision raises none: the caller lists
   * again.
   */
  failed(what: string, cause: unknown): WeftError {
    if (cause instanceof WeftError) return cause
    const code = isDenied(cause) ? 'STORE_DENIED' : isFull(cause) ? 'STORE_FULL' : 'STORE_UNREACHABLE'
    const message = `${what} at ${this.place} failed: ${text(cause)}`
    if (isCompacted(cause)) return new WeftError('STORE_UNREACHABLE', message, 'weftd lists again by itself', { cause })
    if (needsToken(cause)) this.#token = undefined
    const fault = code === 'STORE_UNREACHABLE' ? this.#certificateFault(text(cause)) : undefined
    const cure = fault?.cure ?? (isTooLarge(cause) ? TOO_LARGE : CURES[code])
    const why = fault === undefined ? '' : `; ${fault.what}`
    this.#report.raise(code, `${this.place}: ${text(cause)}${why}`, cure)
    return new WeftError(code, `${message}${why}`, cure, { cause })
  }

  #certificateFault(message: string): CertificateFault | undefined {
    const { endpoints, certFile } = this.#options
    if (!endpoints.some((endpoint) => endpoint.startsWith('https:'))) return undefined
    return certificateFault(message, validityOf(this.tls.cert, certFile), Date.now())
  }

  /** Authority, certificate and key as last read. */
  get tls(): TlsContent {
    return this.#files.content
  }

  /**
   * A stream to the member that answered last. When it breaks, `useNextMember` makes the next one use another member.
   */
  async stream<N extends CallName>(name: N): Promise<Stream<N>> {
    this.#files.renew()
    await this.#authenticate()
    const { path, request, response } = codec(name)
    return this.#member(0).makeBidiStreamRequest(path, request, response, this.#metadata())
  }

  /** A stream of the current member has failed: use the next one. */
  useNextMember(): void {
    this.#preferred = (this.#preferred + 1) % this.#members.length
  }

  #member(after: number): Client {
    const member = this.#members[(this.#preferred + after) % this.#members.length]
    if (member === undefined) throw new RangeError('an etcd without endpoints')
    return member
  }

  async #anywhere<N extends CallName>(name: N, request: Request<N>): Promise<Response<N>> {
    this.#files.renew()
    for (let tried = 1; ; tried++) {
      try {
        return await this.#once(name, request)
      } catch (error) {
        if (!TRY_ANOTHER.includes((error as { readonly code?: unknown }).code) || isFull(error)) throw error
        this.#files.renew(true)
        this.useNextMember()
        if (tried >= this.#members.length) throw error
      }
    }
  }

  #once<N extends CallName>(name: N, request: Request<N>): Promise<Response<N>> {
    const { promise, resolve, reject } = Promise.withResolvers<Response<N>>()
    const { path, request: serialize, response: deserialize } = codec(name)
    const options = { deadline: Date.now() + DEADLINE }
    this.#member(0).makeUnaryRequest(
      path,
      serialize,
      deserialize,
      request,
      this.#metadata(),
      options,
      (error, answer) => {
        if (error === null && answer !== undefined) resolve(answer)
        else reject(error ?? new Error('etcd sent no answer'))
      }
    )
    return promise
  }

  /** The token, and `hasleader`: fail when the member has lost contact with the leader. */
  #metadata(): Metadata {
    const metadata = new Metadata()
    metadata.set('hasleader', 'true')
    if (this.#token !== undefined) metadata.set('token', this.#token)
    return metadata
  }

  async #authenticated<T>(run: () => Promise<T>): Promise<T> {
    await this.#authenticate()
    const used = this.#token
    try {
      return await run()
    } catch (error) {
      if (this.#options.username === undefined || !needsToken(error)) throw error
      if (this.#token === used) this.#token = undefined
      await this.#authenticate()
      return run()
    }
  }

  /** Gets a token if credentials are configured and there is none; concurrent callers share one attempt. */
  async #authenticate(): Promise<void> {
    const { username: name, password = '' } = this.#options
    if (name === undefined || this.#token !== undefined) return
    this.#authenticating ??= this.#newToken(name, password).finally(() => {
      this.#authenticating = undefined
    })
    await this.#authenticating
  }

  async #newToken(name: string, password: string): Promise<void> {
    try {
      this.#token = (await this.#anywhere('authenticate', { name, password })).token
    } catch (error) {
      // Credentials for an etcd without authentication are ignored, as in Go's client.
      if (!text(error).includes('authentication is not enabled')) throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const member of this.#members) member.close()
  }
}

function codec<N extends CallName>(
  name: N
): { path: string; request: (value: Request<N>) => Buffer; response: (bytes: Buffer) => Response<N> } {
  const call: { readonly path: string; readonly request: Message; readonly response: Message } = CALLS[name]
  // TypeScript loses the types of the table when it is indexed by a type parameter.
  return {
    path: call.path,
    request: (value) => encode(call.request, value as Sent<Message>),
    response: (bytes) => decode(call.response, bytes) as Response<N>
  }
}

/** Whether this is a request that a full etcd refuses: an etcd lease, or a transaction that writes. */
const takesSpace = ({ ttlSeconds, success }: Partial<Request<'grant'> & Request<'transaction'>>): boolean =>
  ttlSeconds !== undefined || success?.some(({ put }) => put !== undefined) === true

/** User and password in it are not used, as by flanneld: --etcd-username is for them. Errors: OPTION_INVALID. */
function urlOf(endpoint: string): URL {
  if (URL.canParse(endpoint)) return new URL(endpoint)
  throw new WeftError(
    'OPTION_INVALID',
    `--etcd-endpoints has ${endpoint}, which is not a URL`,
    'write it as http://HOST:2379 or https://HOST:2379, with --etcd-username and --etcd-password for a user'
  )
}

function memberClient({ protocol, hostname, port }: URL, files: TlsContent): Client {
  if (protocol !== 'https:') return new Client(`${hostname}:${port || 80}`, credentials.createInsecure(), CHANNEL)
  const host = hostname.replace(/^\[(.*)\]$/, '$1')
  // RFC 6066 allows no IP address as server name and Node rejects them: a placeholder is sent, and the certificate is
  // checked against the address.
  const name = isIP(host) === 0 ? {} : { 'grpc.ssl_target_name_override': 'etcd' }
  return new Client(`${hostname}:${port || 443}`, secure(host, files), { ...CHANNEL, ...name })
}

const secure = (host: string, { ca, key, cert }: TlsContent): ChannelCredentials =>
  credentials.createSsl(ca, key, cert, {
    checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate)
  })
