// A configuration in etcd's v2 API: what is read of a member's answer, and the command that copies it.
import assert from 'node:assert/strict'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { copyCommand, V2Reader, v2Configuration } from '../../../../daemon/stores/etcd/v2-configuration.ts'

const NONE = { ca: null, key: null, cert: null }

async function asked(listener: RequestListener): Promise<string | undefined> {
  const server = createServer(listener)
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const { port } = server.address() as AddressInfo
  try {
    const found = await v2Configuration(['http://127.0.0.1:9', `http://u:p@127.0.0.1:${port}`], '/x/config', NONE)
    if (found !== undefined) assert.equal(found.endpoint, `http://127.0.0.1:${port}`)
    return found?.text
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

test('the value of the first member that answers, and nothing of another answer', async () => {
  const value = (text: unknown) => JSON.stringify({ action: 'get', node: { key: '/x/config', value: text } })
  assert.equal(await asked(({ url }, response) => response.end(url === '/v2/keys/x/config' ? value('{}') : '')), '{}')
  assert.equal(await asked((_, response) => response.writeHead(404).end('404 page not found\n')), undefined)
  assert.equal(await asked((_, response) => response.end(value(7))), undefined)
  assert.equal(await asked((_, response) => response.end('null')), undefined)
  assert.equal(await asked((_, response) => response.end(value('x'.repeat(70_000)))), undefined)
  assert.equal(await asked(({ socket }) => socket.destroy()), undefined)
})

test('the command quotes the value for a shell, or fetches one that is too long for a message', () => {
  const endpoint = 'http://192.0.2.1:2379'
  assert.equal(
    copyCommand({ text: `{ "a": "it's" }`, endpoint }, '/x/config'),
    String.raw`ETCDCTL_API=3 etcdctl put /x/config '{"a":"it'\''s"}'`
  )
  assert.equal(
    copyCommand({ text: 'no JSON; rm -rf /', endpoint }, '/x/config'),
    `ETCDCTL_API=3 etcdctl put /x/config "$(curl -s 'http://192.0.2.1:2379/v2/keys/x/config' | jq -r .node.value)"`
  )
})

test('the v2 API is asked every ten seconds, not with each request', async () => {
  let times = 0
  const reader = new V2Reader(async () => ({ text: String(++times), endpoint: '' }))
  const seen = []
  for (const now of [0, 1_000, 9_999, 10_000, 19_999]) seen.push((await reader.value(now))?.text)
  assert.deepEqual(seen, ['1', '1', '1', '2', '2'])
})
