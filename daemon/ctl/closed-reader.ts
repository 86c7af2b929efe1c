// Ignores EPIPE: output to a pipe whose reader has exited (`weftctl pods | head`) ends as if everything had been read.
import type { Writable } from 'node:stream'

/**
 * Call it before anything is written. The work continues, so the exit status stays what it would have been; any other
 * error is still thrown.
 */
export function exitOnClosedPipe(...streams: readonly Pick<Writable, 'on'>[]): void {
  for (const stream of streams)
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error
    })
}
