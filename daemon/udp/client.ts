// weftd's side of the proxy: keeps its configuration, starts it where nobody else does, and sends a new one all of it. A
// restarted weftd takes over what the proxy has.
import { formatIp, formatPrefix, network, parseIp, parsePrefix, sameIp } from '../../ipam/address.ts'
import { Backoff } from '../base/backoff.ts'
import type { Log } from '../base/log.ts'
import { Wakeup } from '../base/wakeup.ts'
import type { Health } from '../health/health.ts'
import type { Change } from '../state/difference.ts'
import type { Outcome } from '../state/kernel.ts'
import { isTunnel, type TunnelObject, type TunnelSocket } from '../state/tunnel.ts'
import type { TunnelPort } from '../state/tunnel-port.ts'
import { connectTo, type ProxyConnection, proxyPath } from './connection.ts'
import { type Hello, PROTOCOL, type Request, type Status } from './protocol.ts'
import { startProxy } from './start.ts'

/** Milliseconds between two attempts to connect to a proxy that is starting, and how long that may take. */
const SOON = 10
const STARTING = 10_000

export type ProxyClientOptions = {
  readonly path: string
  readonly version: string
  /** Starts the proxy as a process of its own; absent where something else does, as systemd. */
  readonly start?: (replace: boolean) => void
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
}

export class ProxyClient implements TunnelPort {
  readonly #options: ProxyClientOptions
  readonly #signal: AbortSignal
  readonly #wakeup = new Wakeup()
  /** Public addresses by subnet. */
  readonly #peers = new Map<string, string>()
  #socket: TunnelSocket | undefined
  #connection: ProxyConnection | undefined
  #hasAsked = false
  /** The one that takes over has been started. */
  #isStarting = false

  private constructor(options: ProxyClientOptions, signal: AbortSignal) {
    this.#options = options
    this.#signal = signal
  }

  /** Resolves when it is known what a proxy that runs has. */
  static async open(options: ProxyClientOptions, signal: AbortSignal): Promise<ProxyClient> {
    const client = new ProxyClient(options, signal)
    const connection = await client.#connect()
    if (connection !== undefined) client.#resume(connection.hello)
    return client
  }

  read(): readonly TunnelObject[] {
    const socket = this.#socket
    if (socket === undefined) return []
    const { device } = socket
    return [
      socket,
      ...[...this.#peers].flatMap(([subnet, to]): readonly TunnelObject[] => {
        const [prefix, address] = [parsePrefix(subnet), parseIp(to)]
        return prefix && address ? [{ kind: 'tunnel-peer', device, subnet: prefix, to: address }] : []
      })
    ]
  }

  async apply(changes: readonly Change[]): Promise<readonly Outcome[]> {
    const [put, remove] = [new Map<string, string>(), new Set<string>()]
    const before = this.#socket
    let isSocketPut = false
    for (const change of changes) {
      const { object } = change
      if (!isTunnel(object)) continue
      if (object.kind === 'tunnel-socket') {
        this.#socket = change.do === 'put' ? object : undefined
        isSocketPut ||= change.do === 'put'
        continue
      }
      const subnet = formatPrefix(network(object.subnet))
      put.delete(subnet)
      remove.delete(subnet)
      if (change.do === 'put') put.set(subnet, formatIp(object.to))
      else remove.add(subnet)
    }
    for (const subnet of remove) this.#peers.delete(subnet)
    for (const [subnet, to] of put) this.#peers.set(subnet, to)
    const isOver = before !== undefined && this.#socket === undefined
    await this.#send({
      ...((isSocketPut || isOver) && { socket: this.#socket ?? null }),
      ...{ put, remove: [...remove] },
      ...(isOver && this.#options.start !== undefined && { end: true })
    })
    if (isOver) {
      this.#options.health.clear('UDP_PROXY')
      this.#options.health.clear('UDP_PROXY_AWAY')
    }
    this.#wakeup.notify()
    return changes.map((change) => ({ change }))
  }

  /** Keeps a proxy running as long as there is a tunnel; ends with the signal, and leaves the proxy as it is. */
  async follow(): Promise<void> {
    const backoff = new Backoff({ firstMs: 20, longestMs: 5_000 })
    while (!this.#signal.aborted) {
      // One that takes over is on its way, with what the other had.
      if (this.#socket === undefined && this.#connection === undefined && !this.#isStarting) {
        await this.#wakeup.next(this.#signal)
        continue
      }
      const connection = this.#connection ?? (await this.#found())
      if (connection === undefined) {
        await backoff.pause(this.#signal).catch(() => undefined)
        continue
      }
      backoff.reset()
      await this.#serve(connection)
    }
    this.#connection?.close()
  }

  /** Until the connection is closed. */
  async #serve(connection: ProxyConnection): Promise<void> {
    const { hello } = connection
    if (!this.#isOurs(hello) && this.#socket !== undefined && !this.#hasAsked) this.#replace(connection)
    else await this.#update(hello)
    await Promise.race([connection.closed, aborted(this.#signal)])
    if (this.#signal.aborted) return
    this.#connection = undefined
    if (this.#socket !== undefined) this.#away('it has ended')
  }

  #isOurs({ protocol, version }: Hello): boolean {
    return protocol === PROTOCOL && version === this.#options.version
  }

  /** Once: what else starts it may still have the other version. */
  #replace(connection: ProxyConnection): void {
    const { start, version, log } = this.#options
    this.#hasAsked = true
    log.info(
      { pid: connection.hello.pid, version: connection.hello.version, by: version },
      'weftd udp-proxy is replaced'
    )
    if (start === undefined) void connection.request({ end: true })
    else {
      this.#isStarting = true
      start(true)
    }
  }

  /** Tells the proxy what it does not have. One that has taken over for a tunnel that has ended meanwhile ends. */
  async #update(hello: Hello): Promise<void> {
    const put = new Map([...this.#peers].filter(([subnet, to]) => hello.peers.get(subnet) !== to))
    const remove = [...hello.peers.keys()].filter((subnet) => !this.#peers.has(subnet))
    const [have, want] = [hello.socket, this.#socket]
    const isSame = have?.device === want?.device && sameIp(have?.local, want?.local) && have?.port === want?.port
    const isOver = want === undefined && this.#hasAsked && this.#options.start !== undefined
    this.#heard(hello)
    if (isSame && !isOver && put.size === 0 && remove.length === 0) return
    await this.#send({ ...(!isSame && { socket: want ?? null }), put, remove, ...(isOver && { end: true }) })
  }

  #resume({ socket, peers }: Hello): void {
    if (socket === undefined) return
    this.#socket = { kind: 'tunnel-socket', ...socket }
    for (const [subnet, to] of peers) this.#peers.set(subnet, to)
  }

  async #connect(): Promise<ProxyConnection | undefined> {
    this.#connection = await connectTo(this.#options.path, { status: (status) => this.#heard(status) })
    return this.#connection
  }

  /** Starts a proxy where none answers. */
  async #found(): Promise<ProxyConnection | undefined> {
    const { start } = this.#options
    const first = await this.#connect()
    if (first !== undefined) return first
    if (start === undefined) {
      this.#away('nobody answers')
      return undefined
    }
    if (!this.#isStarting) start(false)
    this.#isStarting = false
    for (const end = performance.now() + STARTING; performance.now() < end && !this.#signal.aborted; ) {
      const connection = await this.#connect()
      if (connection !== undefined) return connection
      await Backoff.constant(SOON)
        .pause(this.#signal)
        .catch(() => undefined)
    }
    this.#away(`it does not answer ${STARTING / 1000} s after its start`)
    return undefined
  }

  async #send(request: Request): Promise<void> {
    const answer = await this.#connection?.request(request)
    if (answer?.error !== undefined)
      this.#options.log.error({ reason: answer.error }, 'weftd udp-proxy refuses its configuration')
  }

  #heard({ carries, fault }: Status): void {
    if (this.#socket === undefined) return
    if (!carries) {
      if (fault !== undefined) this.#away(fault)
      return
    }
    const { device } = this.#socket
    this.#options.health.clear('UDP_PROXY_AWAY')
    this.#options.health.raise('UDP_PROXY', `${device}, socket ${this.#options.path}`)
  }

  #away(why: string): void {
    if (this.#socket === undefined) return
    this.#options.health.raise('UDP_PROXY_AWAY', `${this.#options.path}: ${why}`)
  }
}

export type ProxyOptions = Pick<ProxyClientOptions, 'version' | 'health' | 'log'> & {
  readonly options: { readonly stateDir: string; readonly udpProxy: 'start' | 'external' }
}

export function openProxyClient(
  { options: { stateDir, udpProxy }, version, health, log }: ProxyOptions,
  signal: AbortSignal
): Promise<ProxyClient> {
  const start = udpProxy === 'start' ? { start: startProxy(stateDir, log) } : {}
  return ProxyClient.open({ path: proxyPath(stateDir), version, health, log, ...start }, signal)
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
