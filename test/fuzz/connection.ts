// One connection of a misbehaving client to weftd's socket.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import type { Spoken } from './call.ts'

/** Far above what a call takes when 16 are at work on a busy machine. */
export const HANG_MS = 60_000

/** What a caller sends. */
export type Sending = {
  readonly pieces: readonly (string | Buffer)[]
  /** How the caller goes on after its last byte. */
  readonly last: 'wait' | 'end' | 'leave'
}

/** The line that came back; `undefined` when the connection was closed without a whole one. */
export function sendTo(path: string, { pieces, last }: Sending, hangMs = HANG_MS): Promise<string | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const socket = connect(path)
  const timer = setTimeout(() => {
    socket.destroy()
    reject(new Error(`weftd gave neither an answer nor an end within ${hangMs} ms`))
  }, hangMs)
  let received = ''
  socket.setEncoding('utf8').on('data', (text: string) => (received += text))
  // The other side may close while we still write; what it answered before counts.
  socket.on('error', () => undefined)
  socket.on('close', () => {
    clearTimeout(timer)
    const end = received.indexOf('\n')
    assert.ok(end < 0 || end === received.length - 1, `more than a line: ${received.slice(0, 300)}`)
    resolve(end < 0 ? undefined : received.slice(0, end))
  })
  for (const piece of pieces) socket.write(piece)
  if (last === 'end') socket.end()
  if (last === 'leave') socket.end(() => socket.destroy())
  return promise
}

export const lineOf = (
  { env, stdin }: Spoken,
  plugin: string,
  deadlineMs: number,
  did: readonly unknown[] = []
): string => JSON.stringify({ v: 1, plugin, env, stdin, deadlineMs, did })
