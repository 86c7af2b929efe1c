// A daemon for the tests of weftctl: everything that is weftd's but a Map for the kernel, its socket in a folder of its
// own, and weftctl to ask it.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { controlVerbs } from '../../../daemon/api/control.ts'
import type { ReportAnswer } from '../../../daemon/api/path-answers.ts'
import type { QueryContext } from '../../../daemon/api/query-context.ts'
import { serve } from '../../../daemon/api/server.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import type { Log } from '../../../daemon/base/log.ts'
import { CallHistory } from '../../../daemon/cni/call-history.ts'
import { cniCalls } from '../../../daemon/cni/calls.ts'
import { run } from '../../../daemon/ctl/run.ts'
import { logCondition } from '../../../daemon/health/condition-log.ts'
import { Health } from '../../../daemon/health/health.ts'
import type { KubeRequest } from '../../../daemon/kube/connections.ts'
import { ConditionEvents, EventWriter } from '../../../daemon/kube/events.ts'
import { type Lease, leaseKey } from '../../../daemon/lease/lease.ts'
import type { LeaseEvent } from '../../../daemon/lease/store.ts'
import { inUseWith } from '../../../daemon/node/configured.ts'
import type { Place } from '../../../daemon/node/place.ts'
import { Peers } from '../../../daemon/peers/peers.ts'
import { Attachments } from '../../../daemon/pod/attachments.ts'
import { reserved } from '../../../daemon/pod/recovery/rebuild.ts'
import { RecentChanges } from '../../../daemon/reconcile/recent-changes.ts'
import { Reconciler } from '../../../daemon/reconcile/reconciler.ts'
import type { KernelObject } from '../../../daemon/state/object.ts'
import type { PeerView, ProbeViews } from '../../../daemon/underlay/probe-views.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'
import type { CniRequest, Finished } from '../../../plugins/protocol.ts'
import { heard } from '../logs.ts'
import { MapKernel } from '../map-kernel.ts'
import { podContext } from '../pod/context.ts'
import { testNode } from '../test-node.ts'

const backends = registry(BACKENDS)

export const ip = (text: string) => parseIp(text) ?? assert.fail(text)
export const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

const eth0: KernelObject = { kind: 'link', name: 'eth0', up: true, mtu: 1500, form: { type: 'other', of: '' } }

/** The lease of 192.0.2.N, which is on our link, unless told otherwise. */
export const lease = (n: number, over: Partial<Lease> = {}): Lease => ({
  subnet: { 4: prefix(`10.244.${n}.0/24`) },
  publicIp: { 4: ip(`192.0.2.${n}`) },
  backendType: 'vxlan',
  backendData: { 4: { VNI: 1, VtepMAC: `0e:00:00:00:00:0${n}` } },
  ...over
})

/** Our node, as events name it. */
const REGARDING = { apiVersion: 'v1', kind: 'Node', name: 'one', uid: 'one' }

/** 1 January 2026; each look at the clock is a second later. */
const START = 1_767_225_600_000

export class SmallDaemon implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'weftctl-'))
  readonly dataDir = join(this.folder, 'networks')
  readonly socket = join(this.folder, 'weftd.sock')
  /** Messages of the log. */
  readonly said: string[] = []
  /** Messages of the events about this node, as they are sent to an API server. */
  readonly events: string[] = []
  /** What takes packets away from a lease's route, by its key. */
  readonly shadowed = new Map<string, string>()
  /** Follows ways; absent: the daemon follows none. */
  ways: QueryContext['ways']
  /** What other nodes published. */
  reports: readonly ReportAnswer[] | undefined
  readonly kernel = new MapKernel([eth0])
  readonly changes = new RecentChanges(() => START)
  leaseEnds: number | undefined
  readonly attachments = new Attachments()
  readonly health: Health
  readonly reconciler: Reconciler
  readonly peers: Peers
  readonly #cni: (request: CniRequest) => Promise<unknown>
  readonly #stop = new AbortController()
  readonly #coming: LeaseEvent[] = []
  readonly #parts = new AsyncDisposableStack()
  #wake = () => {}
  #clock = START
  #place: Place | undefined

  private constructor() {
    const log = heard((level, _fields, message) => level === 'debug' || this.said.push(message))
    const now = () => (this.#clock += 1_000)
    const events = new ConditionEvents(this.#eventWriter(log), () => REGARDING, { settleMs: 0, apartMs: 0 })
    this.#parts.use(events)
    const logged = logCondition(log)
    this.health = new Health(now, (condition, active) => {
      logged(condition, active)
      events.onCondition(condition, active)
    })
    const { kernel, health, attachments } = this
    this.reconciler = new Reconciler({
      ...{ kernel, log, now: () => performance.now(), interest: () => true },
      recognises: backends.recognises,
      refused() {},
      drift: (report) => this.changes.add(report)
    })
    const { reconciler } = this
    const { claims } = backends
    const peers = new Peers({ kernel, reconciler, health, log, claims, doubtMs: 60_000, counted() {}, now })
    this.peers = peers
    const outcomes = new CallHistory(now)
    const context = podContext({
      ...{ host: reconciler, attachments, health, log },
      place: () => this.#place && { node: this.#place.node, mtu: 1450, clusterNetworks: { 4: prefix('10.244.0.0/16') } }
    })
    const cni = cniCalls(context, outcomes)
    this.#cni = cni
    const control = controlVerbs({
      ways: async (ways) => this.ways?.(ways) ?? [],
      ...{ version: '1.2.3', startedAt: START, nodeName: 'one', store: 'etcd', health, peers, outcomes },
      ...{ reconciler, changes: this.changes, attachments, reserved: () => reserved(context, this.dataDir) },
      place: () => this.#place,
      leaseEnds: () => this.leaseEnds,
      shadowed: (key) => this.shadowed.get(key),
      probes: { views: this.probed, reports: async () => this.reports }
    })
    this.listen = async () => {
      this.#parts.use(await serve({ path: this.socket, cni, control, log }))
    }
  }

  #eventWriter(log: Log): EventWriter {
    const attempt = async ({ body }: KubeRequest) => {
      this.events.push(String(body?.message))
      return { status: 201, body: {} }
    }
    return new EventWriter({ attempt }, log, () => 'one')
  }

  /** What probes found. */
  readonly probed: Pick<ProbeViews, 'all' | 'of'> & { views: readonly PeerView[] } = {
    views: [],
    all() {
      return this.views
    },
    of(key: string) {
      return this.views.find((view) => view.key === key)?.ways ?? []
    }
  }
  private readonly listen: () => Promise<void>

  /** Ends with the test. */
  static async start(t: TestContext): Promise<SmallDaemon> {
    const daemon = new SmallDaemon()
    t.after(() => daemon[Symbol.asyncDispose]())
    void daemon.reconciler.run(daemon.#stop.signal)
    await daemon.reconciler.observing
    void daemon.peers.follow(daemon.#follow())
    await daemon.listen()
    return daemon
  }

  async *#follow(): AsyncGenerator<LeaseEvent, void> {
    while (!this.#stop.signal.aborted) {
      const next = this.#coming.shift()
      if (next !== undefined) yield next
      else await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }

  /** The node of the unit tests holds its subnet from now on, with VXLAN and direct routing. */
  async hold(): Promise<void> {
    const backend = backends.configure('vxlan', { DirectRouting: true })
    const node = testNode()
    const networks = { 4: prefix('10.244.0.0/16') }
    const family = {
      network: networks[4],
      subnetLength: 24,
      subnetMin: ip('10.244.1.0'),
      subnetMax: ip('10.244.255.0')
    }
    const conf = { families: { 4: family }, backendType: 'vxlan', backend: {} }
    this.#place = { ...inUseWith({ conf, backend, text: '' }), node, lease: lease(1), isConfirmed: true, mtu: 1450 }
    await this.reconciler.want('node', backend.own(node))
    await this.peers.settle({ node, backend, networks })
    this.health.clear('STARTING')
  }

  /** Resolves when the events have been taken and the kernel holds what they ask for. */
  async send(...events: readonly LeaseEvent[]): Promise<void> {
    this.#coming.push(...events)
    this.#wake()
    const deadline = performance.now() + 5_000
    while (!this.#isTaken(events) || this.reconciler.differences().some((change) => change.do === 'put')) {
      if (performance.now() > deadline) assert.fail('the events were not taken within 5 s')
      await new Promise((resolve) => setTimeout(resolve, 2))
    }
  }

  #isTaken(events: readonly LeaseEvent[]): boolean {
    const { leases, skipped } = this.peers
    return events.every((event) => {
      if (event.kind === 'list') return event.leases.every((each) => leases.has(leaseKey(each)))
      return event.kind === 'put' ? leases.has(leaseKey(event.lease)) : event.kind === 'gone' || skipped.has(event.key)
    })
  }

  /** A CNI call as the executable forwards it; the answer's standard output, parsed. */
  async cni(verb: string, over: { readonly plugin?: string; readonly env?: object; readonly conf?: object } = {}) {
    const request: CniRequest = {
      ...{ v: 1, plugin: over.plugin ?? 'weft', deadlineMs: 10_000, did: [] },
      env: {
        ...{ CNI_COMMAND: verb, CNI_CONTAINERID: 'c0ffee0000', CNI_IFNAME: 'eth0', CNI_NETNS: '/run/netns/p1' },
        CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1',
        ...over.env
      },
      stdin: JSON.stringify({ cniVersion: '1.1.0', name: 'cbr0', type: over.plugin ?? 'weft', ...over.conf })
    }
    const { exit, stdout } = (await this.#cni(request)) as Finished
    return { exit, ...(stdout === '' ? {} : (JSON.parse(stdout) as { code?: number; msg?: string; details?: string })) }
  }

  async weftctl(...words: readonly string[]) {
    const said = { out: '', complaints: '' }
    const exit = await run([...words, `--socket=${this.socket}`], {
      ...{ env: {}, version: '1.2.3' },
      out(text) {
        said.out += text
      },
      complain(text) {
        said.complaints += text
      }
    })
    return { exit, ...said }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    this.#wake()
    await this.#parts.disposeAsync()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
