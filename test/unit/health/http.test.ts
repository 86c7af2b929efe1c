// The pages for probes and Prometheus, over a real socket on the loopback.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { text as textOf } from 'node:stream/consumers'
import test from 'node:test'
import type { Deadlines } from '../../../daemon/health/connections.ts'
import { Health } from '../../../daemon/health/health.ts'
import { serveHttp } from '../../../daemon/health/http.ts'
import { createMetrics } from '../../../daemon/health/metrics.ts'
import { parseIp } from '../../../ipam/address.ts'
import { until } from '../until.ts'

const loopback = parseIp('127.0.0.1')
assert.ok(loopback)
const ip = loopback

async function serving(t: test.TestContext, deadlines?: Deadlines) {
  const health = new Health(
    () => 1_767_225_600_000,
    () => {}
  )
  const metrics = createMetrics()
  const end = new AbortController()
  t.after(() => end.abort())
  const { port } = await serveHttp({
    health,
    metrics,
    ip,
    port: 0,
    signal: end.signal,
    ...(deadlines && { deadlines })
  })
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method })
    return { status: response.status, text: await response.text(), headers: response.headers }
  }
  return { health, metrics, end, port, get }
}

test('/healthz says that the process lives, whatever holds', async (t) => {
  const { get } = await serving(t)
  const { status, text } = await get('/healthz')
  assert.deepEqual([status, text], [200, 'ok\n'])
})

test('/readyz names what blocks with its cure, and is ok when only warnings hold', async (t) => {
  const { health, get } = await serving(t)
  assert.deepEqual(await get('/readyz').then(({ status, text }) => [status, text]), [
    503,
    'STARTING: weftd is starting: nothing has been set up yet. Cure: wait; if it lasts, check the weftd log on this node\n'
  ])
  health.clear('STARTING')
  health.raise('STORE_UNREACHABLE', 'http://127.0.0.1:2379 refused the connection')
  assert.deepEqual(await get('/readyz').then(({ status, text }) => [status, text]), [200, 'ok\n'])
})

test('/readyz?verbose has a line for each condition', async (t) => {
  const { health, get } = await serving(t)
  health.clear('STARTING')
  assert.equal((await get('/readyz?verbose')).text, 'ready\n')
  health.raise('STORE_UNREACHABLE', 'http://127.0.0.1:2379 refused the connection')
  health.raise('NO_LEASE', 'none was held')
  const { status, text } = await get('/readyz?verbose')
  assert.equal(status, 503)
  const [head, first, second, rest] = text.split('\n')
  assert.equal(head, 'not ready')
  assert.match(first ?? '', /^\[error\] NO_LEASE \(blocks add, ready, since/)
  assert.match(
    second ?? '',
    /^\[warning\] STORE_UNREACHABLE \(blocks nothing, since 2026-01-01T00:00:00.000Z\): the lease store .*127\.0\.0\.1:2379 refused.* Cure: check/
  )
  assert.equal(rest, '')
})

test('a connection gets /metrics once, however often it asks', async (t) => {
  const { port } = await serving(t)
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(50))
  const received = await textOf(socket)
  assert.equal(received.match(/^HTTP\/1\.1 200/gm)?.length, 1)
  assert.match(received, /^connection: close\r$/im)
})

test('/metrics has the registry in the Prometheus text format', async (t) => {
  const { metrics, get } = await serving(t)
  metrics.counter('weft_things_total', 'Things.').inc(3)
  const { status, text, headers } = await get('/metrics')
  assert.equal(status, 200)
  assert.match(headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
  assert.match(text, /^weft_things_total 3$/m)
})

test('HEAD has the headers of GET and no body; other verbs and paths are refused', async (t) => {
  const { get } = await serving(t)
  const head = await get('/healthz', 'HEAD')
  assert.deepEqual([head.status, head.text, head.headers.get('content-length')], [200, '', '3'])
  const post = await get('/healthz', 'POST')
  assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD'])
  assert.equal((await get('/')).status, 404)
  assert.equal((await get('/metrics/')).status, 404)
})

test('probes are answered while one address and many addresses hold all the sockets they can get open', async (t) => {
  const { port, get } = await serving(t, { first: 600_000, answer: 600_000, next: 600_000 })
  const held: Socket[] = []
  t.after(() => held.forEach((socket) => void socket.destroy()))
  const hold = async (localAddress: string) => {
    const socket = connect({ port, host: '127.0.0.1', localAddress })
    socket.on('error', () => {})
    held.push(socket)
    await once(socket, 'connect')
    socket.resume()
  }
  for (let n = 0; n < 100; n++) await hold('127.0.0.2')
  assert.equal((await get('/healthz')).status, 200)
  await until(() => held.filter((socket) => !socket.closed).length === 16, 'the limit of one address')
  for (let n = 0; n < 100; n++) await hold(`127.0.1.${n + 1}`)
  for (let n = 0; n < 3; n++) assert.equal((await get('/healthz')).status, 200)
  await until(() => held.filter((socket) => !socket.closed).length <= 64, 'the limit of all')
})

test('a connection that sends no request, half of one, or no second one is closed by its deadline', async (t) => {
  const { port } = await serving(t, { first: 20, answer: 1_000, next: 20 })
  for (const text of ['', 'GET /healthz HTTP/1.1\r\nHost:', 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n']) {
    const socket = connect(port, '127.0.0.1')
    socket.resume()
    socket.write(text)
    await once(socket, 'close')
  }
})

test('the end closes the port and connections that were kept alive', async (t) => {
  const { end, port } = await serving(t)
  const idle = connect(port, '127.0.0.1')
  await once(idle, 'connect')
  idle.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(idle, 'data')
  const closed = once(idle, 'close')
  idle.resume()
  end.abort()
  await closed
  const late = connect(port, '127.0.0.1')
  const [error] = await once(late, 'error')
  assert.equal(error.code, 'ECONNREFUSED')
})

test('a port in use and an address of nobody are reported with their cures', async (t) => {
  const other = createServer().listen(0, '127.0.0.1')
  t.after(() => other.close())
  await once(other, 'listening')
  const address = other.address()
  assert.ok(address !== null && typeof address === 'object')
  const surroundings = { health: new Health(Date.now, () => {}), metrics: createMetrics(), signal: t.signal }
  await assert.rejects(serveHttp({ ...surroundings, ip, port: address.port }), {
    code: 'HTTP_LISTEN',
    message: new RegExp(`127\\.0\\.0\\.1:${address.port} .*EADDRINUSE`),
    cure: /another --healthz-port/
  })
  const nobodys = parseIp('192.0.2.1')
  assert.ok(nobodys)
  await assert.rejects(serveHttp({ ...surroundings, ip: nobodys, port: 0 }), {
    code: 'HTTP_LISTEN',
    cure: /set --healthz-ip to an address of this machine/
  })
})
