// A unix socket that answers lines as a test says: the daemon's side of the protocol, without the daemon.
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type CniRequest, parseRequest } from '../../../plugins/protocol.ts'

export type Listening = AsyncDisposable & {
  readonly folder: string
  readonly socketPath: string
  /** Every request that came, in order. */
  readonly requests: readonly CniRequest[]
}

/** `answer` gives the line for a request; `undefined` closes the connection; it may also never resolve. */
export async function listen(
  answer: (request: CniRequest) => Promise<string | undefined> | string | undefined
): Promise<Listening> {
  const folder = await mkdtemp(join(tmpdir(), 'weft-plugins-'))
  const socketPath = join(folder, 'weftd.sock')
  const requests: CniRequest[] = []
  const open = new Set<Socket>()
  const server = createServer((socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    socket.on('error', () => socket.destroy())
    socket.setEncoding('utf8')
    let received = ''
    socket.on('data', async (piece: string) => {
      received += piece
      if (!piece.includes('\n')) return
      const request = parseRequest(received.slice(0, received.indexOf('\n')))
      if ('ctl' in request) throw new Error('a plugin asked a question of weftctl')
      requests.push(request)
      const line = await answer(request)
      if (line === undefined) socket.end()
      else socket.end(`${line}\n`)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject)
    server.listen(socketPath, resolve)
  })
  return {
    folder,
    socketPath,
    requests,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
      await rm(folder, { recursive: true })
    }
  }
}
