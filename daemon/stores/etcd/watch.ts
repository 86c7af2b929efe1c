// One watch stream of etcd as an iterable that ends or throws whatever happens to the stream: cancelled, compacted, closed, or silent.
import type { EtcdConnection, Stream } from './connection.ts'
import type { KeyValue, Response } from './protobuf.ts'

export type WatchEvent =
  | { readonly kind: 'put'; readonly record: KeyValue }
  | { readonly kind: 'delete'; readonly key: string; readonly modified: number }

/** etcd's number for a deletion. */
const DELETED = 1
/** Milliseconds between two questions for a sign of life, and how long the stream may stay silent once etcd has shown that it answers them. */
const ASK = 10_000
const SILENCE = 25_000

/** The end of the range of all keys with this prefix: the prefix with its last character, one byte of UTF-8, replaced by the next. */
export const rangeEnd = (prefix: string): string =>
  prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)

/** Keys to watch: all under a prefix, or exactly one. */
export type Watched = { readonly prefix: string } | { readonly key: string }

/**
 * The events of these keys from `revision` on, those of one message together. Returns when etcd no longer keeps that revision, throws when the stream
 * fails or falls silent. Either way the caller lists again.
 */
export async function* watchFrom(
  connection: EtcdConnection,
  watched: readonly Watched[],
  revision: number,
  signal: AbortSignal
): AsyncGenerator<readonly WatchEvent[], void> {
  signal.throwIfAborted()
  const stream = await connection.stream('watch')
  const incoming = new Incoming(stream)
  const stop = () => incoming.fail(new Error('stopped'))
  signal.addEventListener('abort', stop)
  try {
    for (const one of watched) {
      const range = 'key' in one ? { key: one.key } : { key: one.prefix, rangeEnd: rangeEnd(one.prefix) }
      stream.write({ create: { ...range, startRevision: revision } })
    }
    for (;;) {
      const response = await incoming.next()
      if (response.canceled && response.compactRevision !== 0) return
      if (response.canceled) throw new Error(response.cancelReason || 'etcd cancelled the watch')
      if (response.events.length > 0) yield response.events.map(eventOf)
    }
  } catch (error) {
    if (!signal.aborted) connection.elsewhere()
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
    incoming.close()
    stream.cancel()
  }
}

/** The responses of a stream in a row, and its end, by whatever: an error, silence, or our own wish. */
class Incoming {
  readonly #stream: Stream<'watch'>
  readonly #responses: Response<'watch'>[] = []
  readonly #asking: NodeJS.Timeout
  #failure: Error | undefined
  #wake = (): void => undefined
  #heard = performance.now()
  /** Whether this etcd answers requests for progress at all: 3.3 does not. */
  #answers = false

  constructor(stream: Stream<'watch'>) {
    this.#stream = stream
    // The listener for errors stays for ever: cancelling makes one more, and one without a listener would end the process.
    stream.on('error', (error) => this.fail(error))
    stream.on('end', () => this.fail(new Error('etcd closed the watch')))
    stream.on('data', (response) => this.#take(response))
    this.#asking = setInterval(() => this.#ask(), ASK)
  }

  fail(error: Error): void {
    this.#failure ??= error
    this.#wake()
  }

  /** The next response; throws once there is none and the stream has ended. */
  async next(): Promise<Response<'watch'>> {
    for (;;) {
      const response = this.#responses.shift()
      if (response !== undefined) return response
      if (this.#failure !== undefined) throw this.#failure
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  close(): void {
    clearInterval(this.#asking)
  }

  #take(response: Response<'watch'>): void {
    this.#heard = performance.now()
    // The answer to a request for progress carries no watch.
    if (response.watchId === -1) this.#answers = true
    this.#responses.push(response)
    this.#wake()
  }

  #ask(): void {
    if (this.#answers && performance.now() - this.#heard > SILENCE)
      this.fail(new Error(`etcd has not answered on the watch for ${SILENCE / 1000} s`))
    else if (this.#failure === undefined) this.#stream.write({ progress: {} })
  }
}

const eventOf = ({ type, record }: Response<'watch'>['events'][number]): WatchEvent => {
  if (record === undefined) throw new Error('etcd sent an event without a key')
  return type === DELETED ? { kind: 'delete', key: record.key, modified: record.modified } : { kind: 'put', record }
}
