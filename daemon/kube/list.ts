// Lists a collection in pages and passes each object on at once, so that neither the API server nor weftd keeps more
// than a page in memory.
import type { KubeApi } from './api.ts'
import { type KubeBody, listOf } from './protobuf.ts'

export type KubeListing = {
  /** As `/api/v1/nodes`. */
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  readonly protobuf: boolean
  /** Objects in a page. */
  readonly page: number
}

/** The resourceVersion of the list, or the status and message of a rejected page. */
export type Listed = { readonly version: string } | { readonly status: number; readonly message: string }

/** Calls `each` on every object. Errors: as KubeApi.call. */
export async function listAll(
  api: Pick<KubeApi, 'call'>,
  { path, query, protobuf, page }: KubeListing,
  each: (object: KubeBody) => void,
  signal: AbortSignal
): Promise<Listed> {
  for (let next = ''; ; ) {
    const pageQuery = { ...query, limit: String(page), ...(next !== '' && { continue: next }) }
    const { status, body, object } = await api.call({ verb: 'GET', path, query: pageQuery, protobuf }, signal)
    if (status !== 200) return { status, message: String(body.message ?? '') }
    const list = listOf(object)
    for (const item of list.items) each(item)
    if (list.next === '') return { version: list.version }
    next = list.next
  }
}
