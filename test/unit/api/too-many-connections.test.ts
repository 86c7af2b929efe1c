// Connections beyond the limit of descriptors: closed unanswered, and logged once as long as they keep coming.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { serve } from '../../../daemon/api/server.ts'
import { silent } from '../logs.ts'

test('connections beyond the limit are closed unanswered, which is logged once until a second has passed without one', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-connections-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'weftd.sock')
  const errors: string[] = []
  await using _server = await serve({
    ...{ path, control: new Map(), mostConnections: 1 },
    cni: async ({ stdin }) => ({ v: 1, exit: 0, stdout: stdin, stderr: '' }),
    log: { ...silent, error: (_, message) => void errors.push(message) }
  })
  const connected = async () => {
    const socket = connect(path)
    await once(socket, 'connect')
    return socket
  }
  const first = await connected()
  for (let n = 0; n < 3; n++) assert.equal(await text(await connected()), '')
  assert.equal(errors.length, 1)
  await new Promise((resolve) => setTimeout(resolve, 1_050))
  assert.equal(await text(await connected()), '')
  assert.deepEqual(errors, ['the socket failed', 'the socket failed'])
  const env = { CNI_COMMAND: 'ADD' }
  first.end(`${JSON.stringify({ v: 1, plugin: 'weft', env, stdin: 'served', deadlineMs: 60_000, did: [] })}\n`)
  assert.equal(JSON.parse(await text(first)).stdout, 'served')
})
