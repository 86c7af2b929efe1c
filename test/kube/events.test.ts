// Conditions as events about our node in a real API server: one object per reason, debounced, counted up, renewed, and
// sent late after an outage.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { CONDITIONS, type Condition, type ConditionCode, sentence } from '../../daemon/health/conditions.ts'
import { KubeApi } from '../../daemon/kube/api.ts'
import { KubeAccess, targetOf } from '../../daemon/kube/credentials.ts'
import { ConditionEvents, EventWriter, type Regarding } from '../../daemon/kube/events.ts'
import { warnOfPolicies } from '../../daemon/kube/policy-warnings.ts'
import { Relay } from '../lab/etcd-alone.ts'
import { until } from '../lab/run.ts'
import { Conditions, Watcher, wishOf } from '../lab/store-watcher.ts'
import type { KubeObject } from './api.ts'
import { ApiAlone } from './api-alone.ts'
import { noControlPlane } from './parts.ts'
import { allow, nodeObject, StorePlace } from './store-scene.ts'

const skip = noControlPlane()
const slow = { deadlineMs: 30_000 }
const EVENTS = '/api/v1/namespaces/default/events'

type Event = KubeObject & {
  readonly reason: string
  readonly message: string
  readonly type: string
  readonly count: number
  readonly firstTimestamp: string
  readonly involvedObject: Regarding
}

const condition = (code: ConditionCode, detail: string, since = Date.now()): Condition => ({
  ...CONDITIONS[code],
  code,
  detail,
  since
})

describe('conditions as events', { skip, timeout: 300_000 }, () => {
  let api: ApiAlone
  before(async () => {
    api = await ApiAlone.start()
    await allow(api)
  })
  after(() => api?.[Symbol.asyncDispose]())

  /** Events of a node that was just made, written over a relay that can be cut. */
  async function written(settleMs: number, apartMs: number) {
    await using parts = new AsyncDisposableStack()
    const place = parts.use(await StorePlace.make(api))
    await api.api.call('DELETE', EVENTS)
    const node = await api.api.call('POST', '/api/v1/nodes', nodeObject('n1'))
    const relay = parts.use(new Relay(api.port))
    await relay.open()
    const url = `https://127.0.0.1:${relay.port}`
    const target = await targetOf({ kubeconfigFile: await api.kubeconfig('weftd', { url }), environment: {} })
    const conditions = new Conditions()
    const client = parts.use(
      new KubeApi(await KubeAccess.open(target, () => performance.now()), conditions.deps.report)
    )
    const writer = new EventWriter(client, conditions.deps.log, () => 'n1')
    const regarding = { apiVersion: 'v1', kind: 'Node', name: 'n1', uid: node.metadata.uid! }
    const events = parts.use(new ConditionEvents(writer, () => regarding, { settleMs, apartMs }))
    const there = async () =>
      (await api.api.list<Event>(EVENTS))
        .filter(({ involvedObject }) => involvedObject.uid === node.metadata.uid)
        .sort((a, b) => a.metadata.name.localeCompare(b.metadata.name))
    const kept = parts.move()
    return { place, relay, events, there, conditions, client, writer, [Symbol.asyncDispose]: () => kept.disposeAsync() }
  }
  const shown = (events: readonly Event[]) => events.map(({ type, reason, count }) => `${type} ${reason} ${count}`)

  test('a condition is one warning in the words of the table, and its end a normal event', async () => {
    await using at = await written(50, 0)
    const missing = condition('POD_CIDR_MISSING', 'node n1 has no podCIDR', Date.now() - 5_000)
    at.events.onCondition(missing, true)
    await until(async () => (await at.there()).length === 1, { what: 'the warning', ...slow })
    const [event] = await at.there()
    assert.equal(event?.message, sentence(missing))
    assert.equal(event?.firstTimestamp, new Date(missing.since).toISOString().replace(/\.\d+/, ''))
    assert.deepEqual((await at.place.api.api.get<Event>(`${EVENTS}/${event?.metadata.name}`)).source, {
      component: 'weftd',
      host: 'n1'
    })
    at.events.onCondition(missing, false)
    await until(async () => (await at.there()).length === 2, { what: 'its end', ...slow })
    assert.deepEqual(shown(await at.there()), ['Warning PodCidrMissing 1', 'Normal PodCidrMissing 1'])
    assert.equal((await at.there())[1]?.message, 'no longer: this node has no podCIDR')
  })

  test('changes of a condition count one event up, and what flaps is written once', async () => {
    await using at = await written(300, 0)
    at.events.onCondition(condition('FORWARD_DROPPED', 'by docker'), true)
    await until(async () => (await at.there()).length === 1, { what: 'the first warning', ...slow })
    for (let turn = 0; turn < 20; turn++) {
      at.events.onCondition(condition('FORWARD_DROPPED', 'by docker'), false)
      at.events.onCondition(condition('FORWARD_DROPPED', `by docker and firewalld ${turn}`), true)
    }
    await until(async () => shown(await at.there()).join() === 'Warning ForwardDropped 2', { what: 'two', ...slow })
    assert.match((await at.there())[0]!.message, /by docker and firewalld 19\. Cure: /)
  })

  test('what the API server could not be told is told when it is back, with how long it lasted', async () => {
    await using at = await written(100, 0)
    await at.relay.cut()
    const away = condition('STORE_UNREACHABLE', 'connection refused', Date.now() - 90_000)
    at.events.onCondition(away, true)
    at.events.onCondition(away, false)
    await until(() => at.conditions.raised.size === 0, { what: 'nothing to be raised by an event', ...slow })
    await at.relay.open()
    await until(async () => (await at.there()).length === 2, { what: 'both events', ...slow })
    const [warning, normal] = await at.there()
    assert.match(warning!.message, /^for 90 s: the lease store does not respond.*connection refused/)
    assert.equal(normal!.type, 'Normal')
  })

  test('neither the start nor what is over at once is an event', async () => {
    await using at = await written(100, 0)
    at.events.onCondition(condition('STARTING', 'reading'), true)
    const short = condition('CONFIG_MISSING', 'not there')
    at.events.onCondition(short, true)
    at.events.onCondition(short, false)
    at.events.onCondition(condition('KERNEL_REFUSED', 'a route', Date.now() - 1_000), true)
    await until(async () => (await at.there()).length > 0, { what: 'the one that counts', ...slow })
    assert.deepEqual(shown(await at.there()), ['Warning KernelRefused 1'])
  })

  test('an event that the API server has forgotten is made again', async () => {
    await using at = await written(50, 0)
    at.events.onCondition(condition('LEASE_LOST', 'a'), true)
    await until(async () => (await at.there()).length === 1, { what: 'the first', ...slow })
    await api.api.remove(`${EVENTS}/${(await at.there())[0]!.metadata.name}`)
    at.events.onCondition(condition('LEASE_LOST', 'b'), true)
    await until(async () => (await at.there())[0]?.message.includes(': b.'), { what: 'the second', ...slow })
    assert.deepEqual(shown(await at.there()), ['Warning LeaseLost 1'])
  })

  test('without the right to write events one line in the log says so', async () => {
    await using at = await written(50, 0)
    const role = '/apis/rbac.authorization.k8s.io/v1/clusterroles/weftd'
    const { rules } = await api.api.get<KubeObject & { rules: { resources: string[] }[] }>(role)
    await api.api.patch(role, { rules: rules.filter((rule) => !rule.resources.includes('events')) })
    // The authorizer learns of it by a watch of its own.
    const reasons = ['LEASE_LOST', 'KERNEL_REFUSED', 'FORWARD_DROPPED'] as const
    await until(
      () => {
        for (const code of reasons) at.events.onCondition(condition(code, String(performance.now())), true)
        return at.conditions.logged.includes('events cannot be written')
      },
      { what: 'the line', everyMs: 200, ...slow }
    )
    await api.api.patch(role, { rules })
    assert.equal(at.conditions.logged.filter((line) => line === 'events cannot be written').length, 1)
    assert.equal(at.conditions.active.size, 0)
  })

  test('each NetworkPolicy gets a warning from the one node that speaks, and again when it is due', async () => {
    await using at = await written(50, 0)
    const policies = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies'
    const policy = (name: string) => api.api.call('POST', policies, { metadata: { name }, spec: { podSelector: {} } })
    await policy('before')
    let speaks = false
    const stop = new AbortController()
    const deps = { api: at.client, writer: at.writer, log: at.conditions.deps.log, isLeader: () => speaks }
    const warning = warnOfPolicies(deps, stop.signal, { checkMs: 100, renewMs: 1_000 })
    const there = async () =>
      (await api.api.list<Event>(EVENTS)).filter(({ involvedObject }) => involvedObject.kind === 'NetworkPolicy')
    const names = async () =>
      (await there())
        .map(({ involvedObject }) => involvedObject.name)
        .sort()
        .join()
    try {
      assert.equal(await names(), '')
      speaks = true
      await until(async () => (await names()) === 'before', { what: 'the warning on what was there', ...slow })
      await policy('later')
      await until(async () => (await names()) === 'before,later', { what: 'the warning on what came', ...slow })
      const [event] = await there()
      assert.deepEqual([event?.type, event?.reason], ['Warning', 'NetworkPolicyNotEnforced'])
      assert.match(event!.message, /no program enforces this policy.*Cure: run a policy controller/)
      await until(async () => (await there()).every(({ count }) => count > 1), { what: 'their renewal', ...slow })
      await api.api.remove(`${policies}/before`)
      speaks = false
    } finally {
      stop.abort()
      await warning
      await api.api.call('DELETE', policies)
    }
  })

  test('the store of the first living node warns of policies', async () => {
    await using place = await StorePlace.make(api)
    await api.api.call('DELETE', EVENTS)
    const policies = '/apis/networking.k8s.io/v1/namespaces/default/networkpolicies'
    await api.api.call('POST', policies, { metadata: { name: 'alone' }, spec: { podSelector: {} } })
    const conditions = new Conditions()
    await place.add('n1', { podCidrs: ['10.77.1.0/24'] })
    const now = '2026-11-21T10:00:00Z'
    const ready = [
      { type: 'Ready', status: 'True', reason: 'x', message: '', lastHeartbeatTime: now, lastTransitionTime: now }
    ]
    await api.api.patch('/api/v1/nodes/n1/status', { status: { conditions: ready } })
    await using store = await place.open(conditions, { networkPolicyEnforced: false })
    await store.acquire(wishOf('192.0.2.1'), new AbortController().signal)
    await using _ = new Watcher(store)
    const hasWarning = async () =>
      (await api.api.list<Event>(EVENTS)).some(({ reason }) => reason === 'NetworkPolicyNotEnforced')
    await until(hasWarning, { what: 'the warning', deadlineMs: 90_000 })
    await api.api.call('DELETE', policies)
  })
})
