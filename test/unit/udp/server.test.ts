// The proxy's socket: whoever sends what, it goes on; there is one at a time, and it hands over to the next.
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import fc from 'fast-check'
import { connectTo, proxyPath } from '../../../daemon/udp/connection.ts'
import { runProxy } from '../../../daemon/udp/server.ts'
import { parseIp } from '../../../ipam/address.ts'
import { until } from '../until.ts'

const directory = mkdtempSync(join(tmpdir(), 'weft-udp-'))
after(() => rmSync(directory, { recursive: true }))
const log = { error() {}, warn() {}, info() {}, debug() {} }
let proxies = 0

/** A proxy of this process, at a path of its own. */
function started(options: { readonly path?: string; readonly replace?: boolean; readonly version?: string } = {}) {
  const { path = `${proxyPath(directory)}.${proxies++}`, replace = false, version = '1' } = options
  const stop = new AbortController()
  return { path, stop, ended: runProxy({ path, version, replace, log }, stop.signal) }
}

const answers = (path: string) => until(async () => (await connectTo(path, {})) ?? false, 'a proxy')

test('it is for root alone, says what it has, and is gone with its socket when it is ended', async () => {
  const { path, ended } = started()
  const connection = await answers(path)
  assert.ok(connection)
  assert.equal(statSync(path).mode & 0o777, 0o600)
  assert.deepEqual(connection.hello.peers, new Map())
  assert.equal(connection.hello.carries, false)
  const put = new Map([['10.244.2.0/24', '192.0.2.2']])
  assert.deepEqual(await connection.request({ put }), {})
  const again = await connectTo(path, {})
  assert.deepEqual(again?.hello.peers, put)
  assert.deepEqual(await connection.request({ remove: ['10.244.2.0/24'], end: true }), {})
  await ended
  await again?.closed
  assert.equal(existsSync(path), false)
})

test('what it can not do it says and tries again; another socket is another attempt', async () => {
  const { path, stop, ended } = started()
  const faults: (string | undefined)[] = []
  const connection = await until(
    async () => (await connectTo(path, { status: (of) => faults.push(of.fault) })) ?? false,
    'a proxy'
  )
  assert.ok(connection)
  const local = parseIp('203.0.113.9') ?? assert.fail()
  await connection.request({ socket: { device: 'weft-none', local, port: 8285 } })
  await until(() => faults.length > 0, 'what is wrong')
  assert.match(String(faults[0]), /203\.0\.113\.9|operation not permitted|EPERM/i)
  assert.equal((await connectTo(path, {}))?.hello.socket?.port, 8285)
  await connection.request({ socket: null })
  assert.equal((await connectTo(path, {}))?.hello.fault, undefined)
  stop.abort()
  await ended
})

test('nothing that is sent ends it', async () => {
  const { path, stop, ended } = started()
  await answers(path)
  const noise = fc.oneof(
    fc.string(),
    fc.json(),
    fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('latin1')),
    fc
      .record({ socket: fc.anything(), put: fc.anything(), remove: fc.anything() })
      .map((value) => JSON.stringify(value))
  )
  await fc.assert(
    fc.asyncProperty(fc.array(noise, { maxLength: 5 }), async (lines) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      const socket = createConnection(path, () => socket.end(`${lines.join('\n')}\n`))
      socket.on('error', () => undefined)
      socket.on('close', () => resolve())
      socket.resume()
      await promise
      assert.ok(await connectTo(path, {}))
    }),
    { numRuns: 50 }
  )
  stop.abort()
  await ended
})

test('a second one is refused, or takes over what the first has', async () => {
  const first = started()
  const connection = await answers(first.path)
  assert.ok(connection)
  await assert.rejects(started({ path: first.path }).ended, { code: 'UDP_PROXY_RUNNING' })
  const put = new Map([['10.244.2.0/24', '192.0.2.2']])
  const local = parseIp('127.0.0.1') ?? assert.fail()
  await connection.request({ put, socket: { device: 'weft-none', local, port: 8285 } })
  const second = started({ path: first.path, replace: true, version: '2' })
  await first.ended
  const { hello } = (await answers(first.path)) || assert.fail()
  assert.deepEqual([hello.version, hello.peers, hello.socket?.device], ['2', put, 'weft-none'])
  second.stop.abort()
  await second.ended
})

test('a file that an earlier one left at its path is replaced', async () => {
  const path = join(directory, 'left.sock')
  writeFileSync(path, '')
  const { stop, ended } = started({ path })
  assert.ok(await answers(path))
  stop.abort()
  await ended
})
