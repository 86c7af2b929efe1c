// The network configuration in etcd's old v2 API, where early guides have it written: asked for only to say so.
import { request as insecure } from 'node:http'
import { request as secure } from 'node:https'
import { shellQuoted } from '../../base/printable.ts'
import { quotable } from '../../config/last.ts'
import type { TlsContent } from './tls-files.ts'

export type V2Configuration = {
  readonly text: string
  /** The endpoint that has it, without user and password. */
  readonly endpoint: string
}

/** Milliseconds for the answer of one member, and bytes of it. */
const DEADLINE = 2_000
const LARGEST = 64 << 10

/** Milliseconds between two reads; the v3 API is read every second. */
const AGAIN = 10_000

/** Remembers the last answer for a while. */
export class V2Reader {
  readonly #read: () => Promise<V2Configuration | undefined>
  #readAt = Number.NEGATIVE_INFINITY
  #found: V2Configuration | undefined

  constructor(read: () => Promise<V2Configuration | undefined>) {
    this.#read = read
  }

  async value(now = performance.now()): Promise<V2Configuration | undefined> {
    if (now - this.#readAt >= AGAIN) {
      this.#found = await this.#read()
      this.#readAt = now
    }
    return this.#found
  }
}

/** The value of the key in the v2 API of the first member that answers; `undefined` without one. Never rejects. */
export async function v2Configuration(
  endpoints: readonly string[],
  key: string,
  tls: TlsContent
): Promise<V2Configuration | undefined> {
  for (const endpoint of endpoints) {
    const { protocol, host } = new URL(endpoint)
    const body = await answer(`${protocol}//${host}/v2/keys${encodeURI(key)}`, tls)
    if (body === undefined) continue
    const text = valueIn(body)
    return text === undefined ? undefined : { text, endpoint: `${protocol}//${host}` }
  }
  return undefined
}

/** The command that copies it to the v3 API. */
export function copyCommand({ text, endpoint }: V2Configuration, key: string): string {
  const quoted = quotable(text)
  const value =
    quoted === undefined
      ? `"$(curl -s ${shellQuoted(`${endpoint}/v2/keys${encodeURI(key)}`)} | jq -r .node.value)"`
      : shellQuoted(quoted)
  return `ETCDCTL_API=3 etcdctl put ${key} ${value}`
}

function answer(url: string, { ca, key, cert }: TlsContent): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const files = { ...(ca && { ca }), ...(key && { key }), ...(cert && { cert }) }
  const options = { ...files, agent: false, signal: AbortSignal.timeout(DEADLINE) } as const
  const call = url.startsWith('https:') ? secure(url, options) : insecure(url, options)
  call.on('error', () => resolve(undefined))
  call.on('response', (response) => {
    let body = ''
    response.on('data', (chunk: Buffer) => {
      body += chunk.toString()
      if (body.length <= LARGEST) return
      resolve(undefined)
      call.destroy()
    })
    response.on('error', () => resolve(undefined))
    response.on('end', () => resolve(body))
  })
  call.end()
  return promise
}

/** `{"action":"get","node":{"key":"…","value":"…"}}`; a member without the v2 API answers 404, and no JSON. */
function valueIn(body: string): string | undefined {
  try {
    const { node } = JSON.parse(body) as { readonly node?: { readonly value?: unknown } }
    return typeof node?.value === 'string' ? node.value : undefined
  } catch {
    return undefined
  }
}
