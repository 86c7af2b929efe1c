// Watches that go silent: behind a proxy that is gone no error ever comes.
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { KubeApi } from '../../../daemon/kube/api.ts'
import { KubeAccess } from '../../../daemon/kube/credentials.ts'
import { follow } from '../../../daemon/kube/watch.ts'
import { silent } from '../logs.ts'

const listAt = (resourceVersion: string) => ({ metadata: { resourceVersion }, items: [] })
const bookmark = { type: 'BOOKMARK', object: { metadata: { resourceVersion: '6' } } }
const put = { type: 'ADDED', object: { metadata: { name: 'late', resourceVersion: '7' } } }

/**
 * An API server whose first watch sends a bookmark and ends, whose second is silent for ever, and whose third has news.
 */
async function fallingSilent() {
  const watches: string[] = []
  const server = createServer((request, response) => {
    const { searchParams } = new URL(request.url ?? '', 'http://api')
    response.writeHead(200, { 'content-type': 'application/json' })
    if (!searchParams.has('watch')) return void response.end(JSON.stringify(listAt(watches.length === 0 ? '5' : '6')))
    watches.push(searchParams.get('resourceVersion') ?? '')
    if (watches.length === 1) response.end(`${JSON.stringify(bookmark)}\n`)
    else if (watches.length === 2) response.flushHeaders()
    else response.write(`${JSON.stringify(put)}\n`)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { watches, address, [Symbol.dispose]: close }
}

test('a watch on which nothing comes from its beginning is given up where bookmarks are known to come, and goes on where it was', async () => {
  using server = await fallingSilent()
  const access = await KubeAccess.open({ server: server.address, from: 'this test', insecure: false }, () => 0)
  await using api = new KubeApi(access, { raise: () => undefined, clear: () => undefined })
  const collection = { path: '/api/v1/nodes', protobuf: false, project: () => 'a node' }
  const pace = { page: 100, lifeSeconds: 300, lifeJitterSeconds: 0, silenceMs: 50, overtimeMs: 30_000 }
  for await (const event of follow(api, collection, silent, AbortSignal.timeout(30_000), pace))
    if (event.kind === 'put') break
  // A busy machine may give up a third one before its news is read.
  assert.deepEqual(server.watches.slice(0, 3), ['5', '6', '6'])
})
