// weftd's side of the proxy: what it tells it survives both, and a proxy is started only where it is needed.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import type { ConditionCode } from '../../../daemon/health/conditions.ts'
import type { Change } from '../../../daemon/state/difference.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { ProxyClient } from '../../../daemon/udp/client.ts'
import { connectTo } from '../../../daemon/udp/connection.ts'
import { runProxy } from '../../../daemon/udp/server.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import { until } from '../until.ts'

const directory = mkdtempSync(join(tmpdir(), 'weft-udp-client-'))
after(() => rmSync(directory, { recursive: true }))
const log = { error() {}, warn() {}, info() {}, debug() {} }
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const socket: KernelObject = { kind: 'tunnel-socket', device: 'weft-none', local: ip('127.0.0.1'), port: 8285 }
const peer = (at: number, to = `192.0.2.${at}`): KernelObject => ({
  ...{ kind: 'tunnel-peer', device: 'weft-none', to: ip(to) },
  subnet: parsePrefix(`10.244.${at}.0/24`) ?? assert.fail()
})
const put = (object: KernelObject): Change => ({ do: 'put', object })
const remove = (object: KernelObject): Change => ({ do: 'remove', object })

/** A place where proxies are started in this process. */
function scene(name: string) {
  const path = join(directory, `${name}.sock`)
  const running: { readonly stop: AbortController; readonly ended: Promise<void> }[] = []
  const conditions = new Set<ConditionCode>()
  const start = (version: string) => (replace: boolean) => {
    const stop = new AbortController()
    running.push({ stop, ended: runProxy({ path, version, replace, log }, stop.signal) })
  }
  const weftd = async (version: string, mayStart = true) => {
    const stop = new AbortController()
    const client = await ProxyClient.open(
      {
        ...{ path, version, log, ...(mayStart && { start: start(version) }) },
        health: { raise: (code) => void conditions.add(code), clear: (code) => void conditions.delete(code) }
      },
      stop.signal
    )
    const followed = client.follow()
    return {
      client,
      stop: async () => {
        stop.abort()
        await followed
      }
    }
  }
  const has = async () => {
    const connection = await connectTo(path, {})
    connection?.close()
    return connection?.hello
  }
  return { running, conditions, weftd, has, start }
}

test('a proxy is started with the first socket, told what there is, and found again by the next weftd', async () => {
  const { running, weftd, has } = scene('resume')
  const first = await weftd('1')
  assert.deepEqual(first.client.read(), [])
  assert.equal(running.length, 0, 'other backends need none')
  await first.client.apply([socket, peer(2), peer(3)].map(put))
  await until(async () => (await has())?.peers.size === 2, 'the peers')
  await first.client.apply([remove(peer(3)), put(peer(2, '192.0.2.9')), put(peer(4))])
  const peers = { '10.244.2.0/24': '192.0.2.9', '10.244.4.0/24': '192.0.2.4' }
  assert.deepEqual(Object.fromEntries((await has())?.peers ?? []), peers)
  const told = first.client.read().map(textOf)
  await first.stop()

  const second = await weftd('1')
  assert.deepEqual(second.client.read().map(textOf), told)
  assert.equal(running.length, 1)
  await second.client.apply([remove(peer(2)), remove(peer(4)), remove(socket)])
  await running[0]?.ended
  assert.equal(await has(), undefined)
  assert.deepEqual(second.client.read(), [])
  await second.stop()
})

test('a proxy that ends is started again, and gets what it had', async () => {
  const { running, weftd, has, conditions } = scene('again')
  const { client, stop } = await weftd('1')
  await client.apply([put(socket), put(peer(2))])
  await until(async () => (await has())?.peers.size === 1, 'the peers')
  running[0]?.stop.abort()
  await until(() => conditions.has('UDP_PROXY_AWAY'), 'the condition')
  await until(() => running.length === 2, 'another proxy')
  await until(async () => (await has())?.peers.size === 1, 'the peers, again')
  await stop()
  running[1]?.stop.abort()
  await running[1]?.ended
})

test('one of another version is replaced by one that has the same', async () => {
  const { running, weftd, has, start } = scene('versions')
  start('1')(false)
  await until(async () => (await has()) !== undefined, 'the first')
  const old = await weftd('1')
  await old.client.apply([put(socket), put(peer(2))])
  await old.stop()
  const { client, stop } = await weftd('2')
  assert.equal(client.read().length, 2)
  await until(async () => (await has())?.version === '2', 'the next version')
  assert.equal((await has())?.peers.size, 1)
  await running[0]?.ended
  await stop()
  running[1]?.stop.abort()
  await running[1]?.ended
})

test('where something else starts it, weftd does not', async () => {
  const { running, weftd, has, start, conditions } = scene('external')
  const { client, stop } = await weftd('1', false)
  await client.apply([put(socket), put(peer(2))])
  await until(() => conditions.has('UDP_PROXY_AWAY'), 'the condition')
  assert.equal(running.length, 0)
  start('1')(false)
  await until(async () => (await has())?.peers.size === 1, 'the peers')
  await client.apply([remove(peer(2)), remove(socket)])
  assert.equal((await has())?.socket, undefined, 'it is left running, and idle')
  assert.deepEqual([...conditions], [])
  await stop()
  running[0]?.stop.abort()
  await running[0]?.ended
})

test('a tunnel that ends while its proxy is being replaced leaves none', async () => {
  const { running, weftd, has } = scene('replaced-at-the-end')
  const first = await weftd('1')
  await first.client.apply([put(socket)])
  await until(async () => (await has())?.socket !== undefined, 'the socket')
  await first.stop()
  const second = await weftd('2')
  await second.client.apply([remove(socket)])
  let left = running.length
  for (const { ended } of running) void ended.then(() => left--)
  await until(() => running.length === 2 && left === 0, 'both proxies to have ended')
  assert.equal(await has(), undefined)
  await second.stop()
})
