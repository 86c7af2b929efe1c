// The Kubernetes store when the API server misbehaves: cut, silent, restarted, too far ahead, overloaded, with other
// certificates and tokens, or restored.
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { leaseKey } from '../../daemon/lease/lease.ts'
import { Relay } from '../lab/etcd-alone.ts'
import { until } from '../lab/run.ts'
import { Conditions, Watcher, wishOf } from '../lab/store-watcher.ts'
import { ApiAlone, Front } from './api-alone.ts'
import { Authority } from './authority.ts'
import { noControlPlane } from './parts.ts'
import { allow, annotationsOn, flannel, StorePlace, USER } from './store-scene.ts'

const never = new AbortController().signal
const skip = noControlPlane()
const slow = { deadlineMs: 60_000 }

describe('the kubernetes store', { skip, timeout: 600_000 }, () => {
  let api: ApiAlone
  before(async () => {
    api = await ApiAlone.start()
    await allow(api)
  })
  after(() => api?.[Symbol.asyncDispose]())

  /** A token of the service account `weftd`, good for as long as the secret it is bound to. */
  async function token(secret: string): Promise<string> {
    const account = '/api/v1/namespaces/default/serviceaccounts/weftd'
    const made = await api.api.call('POST', '/api/v1/namespaces/default/secrets', { metadata: { name: secret } })
    const boundObjectRef = { apiVersion: 'v1', kind: 'Secret', name: secret, uid: made.metadata.uid }
    const answer = await api.api.call<{ status: { token: string } }>('POST', `${account}/token`, {
      spec: { boundObjectRef, expirationSeconds: 3_600 }
    })
    return answer.status.token
  }

  /** A kubeconfig that names files for token and authority, and those files. */
  function tokenConfig(place: StorePlace, url: string, secret: string): string {
    writeFileSync(place.file('token'), secret)
    writeFileSync(place.file('ca.crt'), readFileSync(api.authority.ca))
    const path = place.file('token.conf')
    writeFileSync(
      path,
      `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "${url}", certificate-authority: ca.crt}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`
    )
    return path
  }

  test('resumes where a cut connection was, without a new list', async () => {
    await using place = await StorePlace.make(api)
    await using relay = new Relay(api.port)
    await relay.open()
    await place.add('n1', { podCidrs: ['10.77.1.0/24'], annotations: flannel('192.0.2.1') })
    const conditions = new Conditions()
    await using store = await place.open(conditions, { url: `https://127.0.0.1:${relay.port}` })
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the list', ...slow })
    await relay.cut()
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'STORE_UNREACHABLE', ...slow })
    assert.match(
      conditions.active.get('STORE_UNREACHABLE')!,
      /^the Kubernetes API at https:\/\/127\.0\.0\.1:\d+: connect ECONNREFUSED/
    )
    await place.remove('n1')
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await relay.open()
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'what happened meanwhile', ...slow })
    assert.equal(watcher.lists, 1)
    assert.equal(conditions.active.size, 0)
  })

  test('notices a connection that carries nothing any more', async () => {
    await using place = await StorePlace.make(api)
    await using relay = new Relay(api.port)
    await relay.open()
    const pace = { lifeSeconds: 3, lifeJitterSeconds: 0, overtimeMs: 1_000 }
    const conditions = new Conditions()
    await using store = await place.open(conditions, { url: `https://127.0.0.1:${relay.port}`, pace })
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the list', ...slow })
    relay.freeze()
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    // The first question goes over a frozen connection too, and has half a minute to fail.
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'the lease', deadlineMs: 120_000 })
    assert.ok(conditions.logged.includes('the watch on the Kubernetes API broke; resuming it'))
  })

  test('lists again after a restart that forgot the version, keeps our annotations, and says that the API server was away', async () => {
    await using place = await StorePlace.make(api)
    await using relay = new Relay(api.port)
    await relay.open()
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const conditions = new Conditions()
    await using store = await place.open(conditions, { url: `https://127.0.0.1:${relay.port}` })
    await using watcher = new Watcher(store)
    await store.acquire(wishOf('192.0.2.1'), never)
    await until(() => watcher.keys.join() === '10.77.1.0-24', { what: 'our lease', ...slow })
    const lists = watcher.lists
    await relay.cut()
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await place.annotate('n1', { 'public-ip': null })
    await api.stop()
    // What the API server would do every five minutes.
    await api.etcd.compact()
    await api.run()
    assert.ok(conditions.active.has('STORE_UNREACHABLE'))
    await relay.open()
    await until(() => watcher.keys.join() === '10.77.1.0-24,10.77.2.0-24', { what: 'both leases', ...slow })
    assert.ok(watcher.lists > lists)
    assert.ok(conditions.logged.includes('the API server cannot resume the watch; listing again'))
    await until(async () => annotationsOn(await place.node())['public-ip'] === '192.0.2.1', { what: 'ours', ...slow })
    assert.equal(conditions.active.size, 0)
  })

  test('stays away for as long as Retry-After says', async () => {
    await using place = await StorePlace.make(api)
    await using front = await Front.open(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    let refusedAt = 0
    let refusals = 0
    front.instead = ({ method }) => {
      if (method !== 'PATCH' || refusals === 1) return undefined
      refusals++
      refusedAt = performance.now()
      return { status: 429, headers: { 'retry-after': '2' }, body: { kind: 'Status', message: 'too many requests' } }
    }
    const conditions = new Conditions()
    const kubeconfig = tokenConfig(place, front.url, await token('busy'))
    await using store = await place.open(conditions, { kubeconfig })
    await store.acquire(wishOf('192.0.2.1'), never)
    assert.ok(performance.now() - refusedAt >= 2_000)
    assert.ok(conditions.raised.has('STORE_UNREACHABLE'))
    assert.equal(conditions.active.size, 0)
    assert.equal(front.seen.filter((line) => line.startsWith('PATCH')).length, 2)
  })

  test('reads a token again that is refused, and says so while there is no other', async () => {
    await using place = await StorePlace.make(api)
    await using front = await Front.open(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const conditions = new Conditions()
    const kubeconfig = tokenConfig(place, front.url, await token('first'))
    await using store = await place.open(conditions, { kubeconfig })
    await store.acquire(wishOf('192.0.2.1'), never)
    await api.api.remove('/api/v1/namespaces/default/secrets/first')
    const [old, next] = [readFileSync(place.file('token'), 'utf8'), await token('second')]
    // The API server believes for some seconds what it has looked up once.
    await until(
      async () => {
        const stop = AbortSignal.timeout(1_000)
        await store.acquire(wishOf('192.0.2.1'), stop).catch(() => undefined)
        return conditions.raised.has('STORE_DENIED')
      },
      { what: 'the condition STORE_DENIED', ...slow }
    )
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    await until(() => conditions.active.has('STORE_DENIED'), { what: 'STORE_DENIED', ...slow })
    const detail = conditions.active.get('STORE_DENIED')!
    assert.match(detail, /GET \/api\/v1\/nodes\/n1 at .* was answered with 401 /)
    assert.match(conditions.cures.get('STORE_DENIED')!, /renew the token/)
    assert.equal(detail.includes(old), false)
    writeFileSync(place.file('token'), next)
    await taking
    assert.equal(conditions.active.size, 0)
  })

  test('goes on when the authority of the API server changes on the disk', async () => {
    await using place = await StorePlace.make(api)
    const other = await Authority.make(place.file('pki'))
    await using front = await Front.open(api, other)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const conditions = new Conditions()
    const kubeconfig = tokenConfig(place, front.url, await token('authority'))
    await using store = await place.open(conditions, { kubeconfig })
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'STORE_UNREACHABLE', ...slow })
    assert.match(conditions.active.get('STORE_UNREACHABLE')!, /certificate/)
    writeFileSync(place.file('ca.crt'), readFileSync(other.ca))
    await taking
    assert.equal(conditions.active.size, 0)
  })

  test('says which right is missing, and keeps saying it although other requests succeed', async () => {
    await using place = await StorePlace.make(api)
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const role = '/apis/rbac.authorization.k8s.io/v1/clusterroles/weftd'
    const { rules } = await api.api.get<{ metadata: { name: string }; rules: { resources: string[] }[] }>(role)
    await api.api.patch(role, { rules: rules.filter((rule) => !rule.resources.includes('nodes/status')) })
    const conditions = new Conditions()
    await using store = await place.open(conditions)
    await using watcher = new Watcher(store)
    const taking = store.acquire(wishOf('192.0.2.1'), never)
    await until(() => conditions.active.has('STORE_DENIED') && watcher.lists === 1, { what: 'STORE_DENIED', ...slow })
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await until(() => watcher.keys.length === 1, { what: 'a lease through the watch', ...slow })
    assert.match(conditions.active.get('STORE_DENIED')!, /cannot patch resource "nodes\/status"/)
    assert.match(conditions.cures.get('STORE_DENIED')!, /role with that verb/)
    await api.api.patch(role, { rules })
    await taking
    assert.equal(conditions.active.size, 0)
  })

  test('lists again when the etcd behind the API server was restored to an earlier version', async () => {
    await using other = await ApiAlone.start()
    await allow(other)
    await using place = await StorePlace.make(other)
    await using relay = new Relay(other.port)
    await relay.open()
    await place.add('n1', { podCidrs: ['10.77.1.0/24'], annotations: flannel('192.0.2.1') })
    // Far ahead of what a new etcd will be at.
    for (let at = 0; at < 400; at++) await place.annotate('n1', { 'backend-data': `{"VNI":${at}}` })
    const conditions = new Conditions()
    await using store = await place.open(conditions, { url: `https://127.0.0.1:${relay.port}`, nodeName: 'n9' })
    await using watcher = new Watcher(store)
    await until(() => watcher.keys.join() === '10.77.1.0-24', { what: 'the lease', ...slow })
    await relay.cut()
    await other.stop()
    await other.etcd.stop(0, { forget: true })
    other.etcd.run()
    await other.etcd.ready()
    await other.run()
    await allow(other)
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await relay.open()
    await until(() => watcher.keys.join() === '10.77.2.0-24', { what: 'what is there now', ...slow })
    assert.equal(watcher.lists, 2)
  })

  test('a page that is no API server is reported as what it is', async () => {
    await using place = await StorePlace.make(api)
    await using front = await Front.open(api)
    front.instead = () => ({ status: 200, headers: { 'content-type': 'text/html' }, body: [] as unknown as object })
    const conditions = new Conditions()
    await using store = await place.open(conditions, { kubeconfig: tokenConfig(place, front.url, 'x') })
    const stop = new AbortController()
    const taking = store.acquire(wishOf('192.0.2.1'), stop.signal)
    await until(() => conditions.active.has('STORE_UNREACHABLE'), { what: 'STORE_UNREACHABLE', ...slow })
    stop.abort()
    await assert.rejects(taking, { name: 'AbortError' })
  })

  test('a host whose addresses change lets go of its connections and goes on', async () => {
    await using place = await StorePlace.make(api)
    await using store = await place.open(new Conditions(), { kubeconfig: await api.kubeconfig(USER) })
    await using watcher = new Watcher(store)
    await until(() => watcher.lists === 1, { what: 'the list', ...slow })
    store.reconnect()
    await place.add('n2', { podCidrs: ['10.77.2.0/24'], annotations: flannel('192.0.2.2') })
    await until(() => watcher.keys.length === 1, { what: 'a lease', ...slow })
    assert.equal(leaseKey([...watcher.leases.values()][0]!), '10.77.2.0-24')
    assert.equal(watcher.lists, 1)
  })
})
