// One watch stream of etcd as an iterable that ends or throws whatever happens to the stream: cancelled, compacted, closed, or silent.
import type { IWatchResponse, WatchClient } from 'etcd3'
import type { EtcdConnection } from './etcd-connection.ts'

export type KeyValue = {
  readonly key: string
  readonly value: string
  readonly created: number
  readonly modified: number /** `0` without an etcd lease. */
  readonly lease: string
}
export type WatchEvent =
  | { readonly kind: 'put'; readonly record: KeyValue }
  | { readonly kind: 'delete'; readonly key: string; readonly modified: number }

type Stream = Awaited<ReturnType<WatchClient['watch']>>

/** Milliseconds between two questions for a sign of life, and how long the stream may stay silent once etcd has shown that it answers them. */
const ASK = 10_000
const SILENCE = 25_000

/** The range_end that makes a range of all keys with this prefix. */
export function rangeEnd(prefix: string): Buffer {
  const end = Buffer.from(prefix)
  // No key of ours ends in 0xff: it is text.
  end[end.length - 1] = (end.at(-1) ?? 0) + 1
  return end
}

/** What etcd3 returns for a key; revisions stay far below 2^53, lease ids do not and remain text. */
export const keyValue = (kv: {
  readonly key: Buffer
  readonly value: Buffer
  readonly create_revision: string
  readonly mod_revision: string
  readonly lease: string
}): KeyValue => ({
  key: kv.key.toString(),
  value: kv.value.toString(),
  created: Number(kv.create_revision),
  modified: Number(kv.mod_revision),
  lease: kv.lease
})

/**
 * The events under `prefix` from `revision` on, those of one message together. Returns when etcd no longer keeps that revision, throws when the stream
 * fails or falls silent. Either way the caller lists again.
 */
export async function* watchFrom(
  connection: EtcdConnection,
  prefix: string,
  revision: number,
  signal: AbortSignal
): AsyncGenerator<readonly WatchEvent[], void> {
  signal.throwIfAborted()
  const stream = await connection.stream(({ watch }) => watch.watch())
  const incoming = new Incoming(stream)
  const stop = () => incoming.fail(new Error('stopped'))
  signal.addEventListener('abort', stop)
  try {
    stream.write({
      create_request: { key: Buffer.from(prefix), range_end: rangeEnd(prefix), start_revision: revision }
    })
    for (;;) {
      const response = await incoming.next()
      if (response.canceled && response.compact_revision !== '0') return
      if (response.canceled) throw new Error(response.cancel_reason || 'etcd cancelled the watch')
      if (response.events.length > 0) yield response.events.map(eventOf)
    }
  } finally {
    signal.removeEventListener('abort', stop)
    incoming.close()
    // Cancelling makes etcd3 close the member's other channels: only where the stream is broken anyway.
    if (incoming.broken && !signal.aborted) stream.cancel()
    else stream.end()
  }
}

/** The responses of a stream in a row, and its end, by whatever: an error, silence, or our own wish. */
class Incoming {
  readonly #stream: Stream
  readonly #responses: IWatchResponse[] = []
  readonly #asking: NodeJS.Timeout
  #failure: Error | undefined
  #wake = (): void => undefined
  #heard = performance.now()
  /** Whether this etcd answers requests for progress at all: 3.3 does not. */
  #answers = false

  constructor(stream: Stream) {
    this.#stream = stream
    // The listener for errors stays for ever: cancelling makes one more, and one without a listener would end the process.
    stream.on('error', (error) => this.fail(error))
    stream.on('end', () => this.fail(new Error('etcd closed the watch')))
    stream.on('data', (response) => this.#take(response))
    this.#asking = setInterval(() => this.#ask(), ASK)
  }

  get broken(): boolean {
    return this.#failure !== undefined
  }

  fail(error: Error): void {
    this.#failure ??= error
    this.#wake()
  }

  /** The next response; throws once there is none and the stream has ended. */
  async next(): Promise<IWatchResponse> {
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

  #take(response: IWatchResponse): void {
    this.#heard = performance.now()
    // The answer to a request for progress carries no watch.
    if (response.watch_id === '-1') this.#answers = true
    this.#responses.push(response)
    this.#wake()
  }

  #ask(): void {
    if (this.#answers && performance.now() - this.#heard > SILENCE)
      this.fail(new Error(`etcd has not answered on the watch for ${SILENCE / 1000} s`))
    else if (this.#failure === undefined) this.#stream.write({ progress_request: {} })
  }
}

const eventOf = ({ type, kv }: IWatchResponse['events'][number]): WatchEvent =>
  type.toUpperCase() === 'DELETE'
    ? { kind: 'delete', key: kv.key.toString(), modified: Number(kv.mod_revision) }
    : { kind: 'put', record: keyValue(kv) }
