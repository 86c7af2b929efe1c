// Talks to the API server as an administrator over the unix socket of `kubectl proxy`: the API server listens in a
// namespace of the lab, where this process is not.
import { request } from 'node:http'
import { until } from '../lab/run.ts'

export type KubeObject = {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly uid?: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly labels?: Readonly<Record<string, string>>
    readonly [field: string]: unknown
  }
  readonly [field: string]: unknown
}

export type Condition = {
  readonly type: string
  readonly status: string
  readonly reason?: string
  readonly message?: string
}

export type Node = KubeObject & {
  readonly spec: { readonly podCIDR?: string; readonly podCIDRs?: readonly string[] }
  readonly status: { readonly conditions: readonly Condition[] }
}

export type Pod = KubeObject & {
  readonly spec: { readonly nodeName?: string }
  readonly status: {
    readonly phase: string
    readonly podIP?: string
    readonly podIPs?: readonly { readonly ip: string }[]
    readonly conditions?: readonly Condition[]
    readonly containerStatuses?: readonly {
      readonly containerID?: string
      readonly ready: boolean
      readonly restartCount: number
    }[]
  }
}

export class ApiError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export class Api {
  readonly #socket: string

  constructor(socket: string) {
    this.#socket = socket
  }

  /** The parsed answer. Rejects with the status and the server's words when that is no success. */
  async call<T = KubeObject>(method: string, path: string, body?: unknown, type = 'application/json'): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const outgoing = request({
      socketPath: this.#socket,
      method,
      path,
      headers: body === undefined ? {} : { 'content-type': type },
      signal: AbortSignal.timeout(30_000)
    })
    outgoing.on('error', reject)
    outgoing.on('response', (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      answer.on('error', reject)
      answer.on('end', () => {
        const status = answer.statusCode ?? 0
        if (status >= 200 && status < 300) return resolve((text.startsWith('{') ? JSON.parse(text) : text) as T)
        const said = text.startsWith('{') ? (JSON.parse(text) as { readonly message?: string }).message : text
        reject(new ApiError(status, `${method} ${path}: ${status} ${said}`))
      })
    })
    outgoing.end(body === undefined ? undefined : JSON.stringify(body))
    return promise
  }

  get<T = KubeObject>(path: string): Promise<T> {
    return this.call<T>('GET', path)
  }

  async list<T = KubeObject>(path: string): Promise<readonly T[]> {
    return (await this.get<{ readonly items: readonly T[] }>(path)).items
  }

  /** A merge patch (RFC 7386). */
  patch<T = KubeObject>(path: string, change: unknown): Promise<T> {
    return this.call<T>('PATCH', path, change, 'application/merge-patch+json')
  }

  nodes(): Promise<readonly Node[]> {
    return this.list<Node>('/api/v1/nodes')
  }

  node(name: string): Promise<Node> {
    return this.get<Node>(`/api/v1/nodes/${name}`)
  }

  /** Pods of a namespace; `labels` as a selector, `app=echo`. */
  pods(namespace: string, labels = ''): Promise<readonly Pod[]> {
    return this.list<Pod>(`/api/v1/namespaces/${namespace}/pods?labelSelector=${encodeURIComponent(labels)}`)
  }

  pod(namespace: string, name: string): Promise<Pod> {
    return this.get<Pod>(`/api/v1/namespaces/${namespace}/pods/${name}`)
  }

  /** Deletes it, and does not mind if it is not there. */
  async remove(path: string): Promise<void> {
    await this.call('DELETE', path).catch((error: unknown) => {
      if (!(error instanceof ApiError && error.status === 404)) throw error
    })
  }

  /** Waits until the API server says that it is ready. */
  async ready(deadlineMs = 120_000): Promise<void> {
    const ready = async () => (await this.call<string>('GET', '/readyz')) === 'ok'
    await until(ready, { what: 'the API server to be ready', deadlineMs, everyMs: 100 })
  }
}

/** The status of a condition: 'True', 'False', 'Unknown', or undefined when it is not told. */
export function conditionOf(
  object: { readonly status: { readonly conditions?: readonly Condition[] } },
  type: string
): Condition | undefined {
  return object.status.conditions?.find((condition) => condition.type === type)
}

export function isReady(object: { readonly status: { readonly conditions?: readonly Condition[] } }): boolean {
  return conditionOf(object, 'Ready')?.status === 'True'
}
