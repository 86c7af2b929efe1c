// Sends one question to the daemon over its socket and returns the answer, or an error with a cure.
import { connect } from 'node:net'
import { type ControlRequest, ProtocolError, parseControlReply, protocolVersion } from '../../plugins/protocol.ts'
import { reasonOf, WeftError } from '../base/error.ts'

/** Bytes: some hundred for each of tens of thousands of leases or kernel objects. */
const LONGEST_ANSWER = 160 * 1024 * 1024

/**
 * Asks `question` on the socket at `path`. Errors: what the daemon says, DAEMON_UNREACHABLE with the cause,
 * ANSWER_UNKNOWN when it speaks another version.
 */
export async function ask(
  path: string,
  question: string,
  args: readonly string[],
  signal: AbortSignal
): Promise<unknown> {
  const request: ControlRequest = { v: protocolVersion, ctl: question, args }
  const line = await exchange(path, `${JSON.stringify(request)}\n`, signal).catch((cause: NodeJS.ErrnoException) => {
    throw new WeftError('DAEMON_UNREACHABLE', `weftd does not answer on ${path}: ${reasonOf(cause)}`, cureOf(cause), {
      cause
    })
  })
  const reply = read(line)
  if ('error' in reply) throw new WeftError(reply.error.code, reply.error.message, reply.error.cure)
  return reply.answer
}

function read(line: string) {
  try {
    return parseControlReply(line)
  } catch (cause) {
    if (!(cause instanceof ProtocolError)) throw cause
    throw new WeftError('ANSWER_UNKNOWN', cause.message, 'use the weftctl of the same release as weftd', { cause })
  }
}

function cureOf({ code, name }: NodeJS.ErrnoException): string {
  if (code === 'EACCES') return 'run weftctl as root (sudo)'
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return 'start weftd (systemctl status weftd; in a cluster: kubectl -n weft get pods -o wide), or set --socket if weftd has another --state-dir'
  }
  if (name === 'TimeoutError') return 'check the log of weftd, which is busy or stuck, or wait longer with --timeout'
  return 'check the log of weftd (journalctl -u weftd)'
}

/** Sends a line and resolves with the line that comes back. */
async function exchange(path: string, line: string, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect(path)
  const stop = () => reject(signal.reason)
  signal.addEventListener('abort', stop, { once: true })
  const parts: Buffer[] = []
  let bytes = 0
  socket.on('connect', () => socket.write(line))
  socket.on('data', (part: Buffer) => {
    const end = part.indexOf(0x0a)
    parts.push(end < 0 ? part : part.subarray(0, end))
    bytes += part.length
    if (end >= 0) resolve(Buffer.concat(parts).toString())
    else if (bytes > LONGEST_ANSWER) reject(new Error(`the answer is longer than ${LONGEST_ANSWER} bytes`))
  })
  socket.on('error', reject)
  socket.on('close', () => reject(new Error('it closed the connection without an answer')))
  try {
    return await promise
  } finally {
    signal.removeEventListener('abort', stop)
    socket.destroy()
  }
}
