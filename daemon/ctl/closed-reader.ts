// What prints into a pipe whose reader has had enough (`weftctl pods | head`) ends as if all had been read.
import type { Writable } from 'node:stream'

/** To be called before anything is written. The work goes on, and so the exit status is what it would have been; any other error is thrown as without it. */
export function exitOnClosedPipe(...streams: readonly Pick<Writable, 'on'>[]): void {
  for (const stream of streams)
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error
    })
}
