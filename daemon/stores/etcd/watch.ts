// An etcd watch as an iterable that ends when the revision is compacted and throws when the stream is cancelled,
// closed, broken or silent.
import { AsyncQueue } from '../../base/async-queue.ts'
import type { EtcdConnection, Stream } from './connection.ts'
import { rangeEnd } from './key-range.ts'
import type { KeyValue, Response } from './messages.ts'

export type WatchEvent =
  | { readonly kind: 'put'; readonly record: KeyValue }
  | { readonly kind: 'delete'; readonly key: string; readonly modified: number }

/** etcd's number for a deletion. */
const DELETED = 1
/** Milliseconds between two progress requests, and how long the stream may be silent once etcd has answered one. */
const ASK = 10_000
const SILENCE = 25_000

/** Keys to watch: all under a prefix, or exactly one. */
export type Watched = { readonly prefix: string } | { readonly key: string }

/**
 * Events of these keys from `revision` on, in the batches of etcd's messages. Returns when etcd has compacted that
 * revision, throws when the stream fails or falls silent. In both cases the caller lists again.
 */
export async function* watchFrom(
  connection: EtcdConnection,
  watched: readonly Watched[],
  revision: number,
  signal: AbortSignal
): AsyncGenerator<readonly WatchEvent[], void> {
  signal.throwIfAborted()
  const stream = await connection.stream('watch')
  const responses = new AsyncQueue<Response<'watch'>>(signal)
  const heartbeat = setInterval(receive(stream, responses), ASK)
  try {
    for (const one of watched) {
      const range = 'key' in one ? { key: one.key } : { key: one.prefix, rangeEnd: rangeEnd(one.prefix) }
      stream.write({ create: { ...range, startRevision: revision } })
    }
    for await (const response of responses) {
      if (response.canceled && response.compactRevision !== 0) return
      if (response.canceled) throw new Error(response.cancelReason || 'etcd cancelled the watch')
      if (response.events.length > 0) yield response.events.map(eventOf)
    }
    signal.throwIfAborted()
  } catch (error) {
    if (!signal.aborted) connection.useNextMember()
    throw error
  } finally {
    clearInterval(heartbeat)
    stream.cancel()
  }
}

/**
 * Pushes what the stream receives, its end and its failure. Returns the heartbeat: it requests progress, and fails the
 * queue when the last message is too old. etcd 3.3 does not answer such requests, so silence counts only after the
 * first answer.
 */
function receive(stream: Stream<'watch'>, responses: AsyncQueue<Response<'watch'>>): () => void {
  let lastAt = performance.now()
  let answers = false
  // The error listener is never removed: cancelling raises one more error, which would end the process without it.
  stream.on('error', (error) => responses.fail(error))
  stream.on('end', () => responses.fail(new Error('etcd closed the watch')))
  stream.on('data', (response) => {
    lastAt = performance.now()
    // The answer to a progress request carries no watch id.
    if (response.watchId === -1) answers = true
    responses.push(response)
  })
  return () => {
    if (answers && performance.now() - lastAt > SILENCE)
      responses.fail(new Error(`etcd has not answered on the watch for ${SILENCE / 1000} s`))
    else if (!responses.ended) stream.write({ progress: {} })
  }
}

const eventOf = ({ type, record }: Response<'watch'>['events'][number]): WatchEvent => {
  if (record === undefined) throw new Error('etcd sent an event without a key')
  return type === DELETED ? { kind: 'delete', key: record.key, modified: record.modified } : { kind: 'put', record }
}
