// The connection to etcd: package etcd3 for channels, TLS and typed RPCs; deadlines, failover, tokens and the store's conditions are ours.
// etcd3's own watcher, lease and retry classes are not used (reference/libraries.md lists their faults). Its authenticator neither, because it opens a channel
// per token that is never closed, retries without end on a token it just got refused, and does not know "revision of auth store is old".
import { readFileSync } from 'node:fs'
import { Etcd3, type IOptions, isRecoverableError, type KVClient, type LeaseClient, type WatchClient } from 'etcd3'
import { WeftError } from '../error.ts'
import type { StoreSurroundings } from './store.ts'

export type EtcdOptions = {
  /** URLs, all http or all https. */
  readonly endpoints: readonly string[]
  /** Without a slash at its end, as `/coreos.com/network`. */
  readonly prefix: string
  readonly keyFile?: string | undefined
  readonly certFile?: string | undefined
  readonly caFile?: string | undefined
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly renewMarginMinutes: number
}

/** Milliseconds: for one RPC at one member; between keep-alive pings (etcd refuses less than 5 s); for the answer to one. */
const DEADLINE = 5_000
const PING = 10_000
const PONG = 5_000
/** Bytes of one message; a watch that catches up can send many events at once. */
const LARGEST_MESSAGE = 64 << 20

export type Clients = { readonly kv: KVClient; readonly lease: LeaseClient; readonly watch: WatchClient }
type CallOptionsFactory = Extract<IOptions['defaultCallOptions'], (...context: never[]) => unknown>
type Interceptor = NonNullable<ReturnType<CallOptionsFactory>['interceptors']>[number]
type Call = ReturnType<Parameters<Interceptor>[1]>
type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>

const text = (error: unknown): string => (error instanceof Error ? error.message : String(error))
/** The token is no longer good, or none was sent: a new one may help. */
const needsToken = (error: unknown): boolean =>
  /auth token|revision of auth store is old|user name is empty/.test(text(error))
/** Our credentials are refused, or none were given where they are needed. */
export const isDenied = (error: unknown): boolean =>
  /permission denied|authentication failed|auth token|user name is empty/.test(text(error))
/** The revision that was asked for is no longer kept: list again. */
export const isCompacted = (error: unknown): boolean => /required revision has been compacted/.test(text(error))

export class EtcdConnection implements AsyncDisposable {
  readonly #client: Etcd3
  readonly #options: EtcdOptions
  readonly #report: StoreSurroundings['report']
  #token: string | undefined
  #authenticating: Promise<void> | undefined

  /** Opens nothing yet. Errors: OPTION_INVALID when a certificate or key can't be read. */
  constructor(options: EtcdOptions, report: StoreSurroundings['report']) {
    this.#options = options
    this.#report = report
    this.#client = new Etcd3(clientOptions(options, (call) => this.#withToken(call)))
  }

  /** Where, for messages. */
  get place(): string {
    return `etcd at ${this.#options.endpoints.join(', ')}`
  }

  /**
   * One request, tried at every member until one answers, and once more with a new token where the old one is refused.
   * Raises or clears STORE_UNREACHABLE and STORE_DENIED. Errors: STORE_DENIED; STORE_UNREACHABLE for everything else that etcd says or does not say.
   */
  async call<T>(what: string, run: (clients: Clients) => Promise<T>): Promise<T> {
    try {
      const answer = await this.#authenticated(run)
      this.#report.clear('STORE_UNREACHABLE')
      this.#report.clear('STORE_DENIED')
      return answer
    } catch (error) {
      throw this.failed(what, error)
    }
  }

  /** Makes the error for something that failed, and raises its condition. A compacted revision is no condition: the caller lists again. */
  failed(what: string, cause: unknown): WeftError {
    const code = isDenied(cause) ? 'STORE_DENIED' : 'STORE_UNREACHABLE'
    // What grpc puts before the words: `14 UNAVAILABLE: `.
    const reason = text(cause)
      .replace(/^\d+ [A-Z_]+: /, '')
      .replace(/ Resolution note: $/, '')
    const message = `${what} from ${this.place} failed: ${reason}`
    if (isCompacted(cause)) return new WeftError('STORE_UNREACHABLE', message, 'weftd lists again by itself', { cause })
    if (needsToken(cause)) this.#token = undefined
    this.#report.raise(code, `${this.place}: ${reason}`)
    return new WeftError(code, message, 'see the condition of the same name', { cause })
  }

  /** A stream's calls need the token before they start; what happens to them later is the caller's to see. */
  async stream<T>(open: (clients: Clients) => Promise<T>): Promise<T> {
    await this.#authenticate()
    return open(this.#clients)
  }

  get #clients(): Clients {
    return { kv: this.#client.kv, lease: this.#client.leaseClient, watch: this.#client.watchClient }
  }

  async #authenticated<T>(run: (clients: Clients) => Promise<T>): Promise<T> {
    await this.#authenticate()
    const used = this.#token
    try {
      return await run(this.#clients)
    } catch (error) {
      if (this.#options.username === undefined || !needsToken(error)) throw error
      if (this.#token === used) this.#token = undefined
      await this.#authenticate()
      return run(this.#clients)
    }
  }

  /** Gets a token if there are credentials and none is held; several callers share one attempt. */
  async #authenticate(): Promise<void> {
    const { username: name, password = '' } = this.#options
    if (name === undefined || this.#token !== undefined) return
    this.#authenticating ??= this.#client.auth
      .authenticate({ name, password })
      .then(
        ({ token }) => {
          this.#token = token
        },
        (error) => {
          // Credentials for an etcd without users: they are not needed. The same as Go's client.
          if (!text(error).includes('authentication is not enabled')) throw error
        }
      )
      .finally(() => {
        this.#authenticating = undefined
      })
    await this.#authenticating
  }

  /** Puts the token on a call, asks to be told when the member has lost its leader, and hides the one status from etcd3 that makes it retry for ever. */
  #withToken(call: Call): Call {
    const start = call.start.bind(call)
    call.start = (metadata, listener) => {
      metadata.set('hasleader', 'true')
      if (this.#token !== undefined) metadata.set('token', this.#token)
      start(metadata, {
        onReceiveMetadata: (received) => listener?.onReceiveMetadata?.(received),
        onReceiveMessage: (message) => listener?.onReceiveMessage?.(message),
        onReceiveStatus: (status) => {
          const details = status.details.replace(
            'etcdserver: invalid auth token',
            'etcdserver: the auth token is not valid'
          )
          listener?.onReceiveStatus?.({ ...status, details })
        }
      })
    }
    return call
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close()
  }
}

function clientOptions(options: EtcdOptions, intercept: (call: Call) => Call): IOptions {
  // The type asks for grpc's class; grpc itself uses the interface, which this is.
  const interceptors: Interceptor[] = [(callOptions, next) => intercept(next(callOptions)) as ReturnType<Interceptor>]
  return {
    hosts: options.endpoints.map((endpoint) => {
      const { protocol, hostname, port } = new URL(endpoint)
      return `${protocol}//${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`
    }),
    ...credentials(options),
    defaultCallOptions: ({ isStream }) =>
      isStream ? { interceptors } : { interceptors, deadline: Date.now() + DEADLINE },
    faultHandling: { host: () => once, global: everyMember(options.endpoints.length) },
    grpcOptions: {
      'grpc.keepalive_time_ms': PING,
      'grpc.keepalive_timeout_ms': PONG,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 5_000,
      'grpc.max_receive_message_length': LARGEST_MESSAGE,
      'grpc.enable_channelz': 0,
      // etcd belongs to the cluster: a proxy for the outside world does not lead there.
      'grpc.enable_http_proxy': 0
    }
  }
}

function credentials({ endpoints, caFile, keyFile, certFile }: EtcdOptions): Pick<IOptions, 'credentials'> {
  if (!endpoints.some((endpoint) => endpoint.startsWith('https:')) || (caFile ?? keyFile ?? certFile) === undefined)
    return {}
  const read = (option: string, path: string | undefined): Buffer | undefined => {
    if (path === undefined) return undefined
    try {
      return readFileSync(path)
    } catch (cause) {
      throw unreadable(option, path, cause)
    }
  }
  const given = {
    rootCertificate: read('--etcd-cafile', caFile),
    privateKey: read('--etcd-keyfile', keyFile),
    certChain: read('--etcd-certfile', certFile)
  }
  // Without an authority grpc trusts those that Node trusts; etcd3's type does not know.
  return { credentials: given as NonNullable<IOptions['credentials']> }
}

const unreadable = (option: string, path: string, cause: unknown): WeftError =>
  new WeftError(
    'OPTION_INVALID',
    `${option} ${path} can not be read: ${text(cause)}`,
    `correct ${option} or the file's owner and mode`,
    { cause }
  )

const nothing = { dispose: () => undefined }
/** In place of etcd3's circuit breaker, which would keep a member that is back out of use for five seconds. */
const once: Policy = {
  execute: async (run) => run({ signal: new AbortController().signal }),
  onSuccess: () => nothing,
  onFailure: () => nothing,
  // Only a type, by cockatiel's own word.
  _altReturn: undefined as never
}

/** In place of etcd3's retries: each member is tried once (etcd3 hands out another with every attempt, in random order). */
function everyMember(members: number): Policy {
  const execute: Policy['execute'] = async (run) => {
    for (let tried = 1; ; tried++) {
      try {
        return await once.execute(run)
      } catch (error) {
        if (tried >= members || !(error instanceof Error) || !isRecoverableError(error)) throw error
      }
    }
  }
  return { ...once, execute }
}
