// weftd's socket with invalid input: always an answer or a closed connection, never a crash, a hang, a change in the
// kernel, or unbounded memory.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { isObject } from '../../plugins/cni/field.ts'
import { longestLineBytes } from '../../plugins/protocol.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { Cluster, type Resident } from '../lab/cluster.ts'
import { HeapWatch } from '../lab/heap.ts'
import { atMostOpen, descriptors, recordOf, residentMiB } from '../lab/host-record.ts'
import { until } from '../lab/run.ts'
import { checkAnswer } from './answer.ts'
import { hostileCall, NOWHERE, type Places, type Spoken } from './call.ts'
import { campaignOf, casesOf } from './campaign.ts'
import { HANG_MS, lineOf, type Sending, sendTo } from './connection.ts'
import { ADMIN_CHAIN } from './keys.ts'
import type { Random } from './random.ts'
import { jsonOf, ODD_TEXTS, oddTree, spoiledJson, spoiledText, treeOf } from './tree.ts'

const skip = process.getuid?.() === 0 ? false : 'weftd and its namespaces need root'
const SOCKET = '/run/weft/weftd.sock'
/** The memory limit of weftd in deploy/. */
const MEMORY_LIMIT_MIB = 256
/** Connections at once. */
const TOGETHER = 16

let cluster: Cluster
let heap: HeapWatch
let resident: Resident
let pid = 0

const node = () => cluster.node(1)

const send = (sending: Sending) => sendTo(node().path(SOCKET), sending)

/** A call to its end, as the executable makes it: delegates that weftd wants run fail, or print anything. */
async function callToEnd(random: Random, call: Spoken, plugin: string): Promise<string> {
  const did: unknown[] = []
  for (let runs = 0; runs <= 16; runs++) {
    const line = await send({ pieces: [lineOf(call, plugin, HANG_MS, did), '\n'], last: 'wait' })
    checkReply(line, call.env.CNI_COMMAND)
    const { run } = JSON.parse(line ?? '') as { readonly run?: { readonly id: string } }
    if (run === undefined) return line ?? ''
    // What was created must be removable: a DEL's delegates succeed.
    if (call.env.CNI_COMMAND === 'DEL') {
      did.push({ id: run.id, exit: 0, stdout: '', stderr: '' })
      continue
    }
    const stdout = random.pick([
      '',
      '{"code":11,"msg":"busy","details":"soon"}',
      spoiledJson(random, treeOf(delegated))
    ])
    const ended = { id: run.id, exit: random.pick([0, 1]), stdout, stderr: '' }
    did.push(random.chance(0.5) ? { id: run.id, reason: 'failed to find plugin' } : ended)
  }
  throw new Error(`weftd wants delegates without end: ${JSON.stringify(did)}`)
}

const delegated = {
  cniVersion: '1.0.0',
  ips: [{ address: '10.77.0.5/24', gateway: '10.77.0.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: { nameservers: ['10.0.0.10'] }
}

/** A well-formed answer of weftd to a call or to anything else. */
function checkReply(line: string | undefined, verb: string | undefined | 'any'): void {
  assert.ok(line !== undefined, 'no answer')
  const reply: unknown = JSON.parse(line)
  assert.ok(isObject(reply) && reply.v === 1, line)
  if (isObject(reply.run)) assert.equal(typeof reply.run.type, 'string')
  else if (typeof reply.exit === 'number') {
    checkAnswer({ exit: reply.exit, stdout: String(reply.stdout) }, verb)
    assert.equal(typeof reply.stderr, 'string')
  } else if (!('answer' in reply)) {
    assert.ok(isObject(reply.error), line)
    for (const key of ['code', 'message', 'cure']) assert.equal(typeof reply.error[key], 'string')
  }
}

function hostileLine(
  random: Random,
  places: Places,
  types: readonly string[] = pluginTypes
): { readonly line: string; readonly call: Spoken; readonly plugin: string } {
  const plugin = random.chance(0.95) ? random.pick(types) : random.pick(ODD_TEXTS)
  const call = hostileCall(random, plugin, { places })
  return { line: lineOf(call, plugin, random.pick([1, 500, 60_000, 100_000])), call, plugin }
}

/** Other plugins, for addresses and rules, may not need a namespace: an ADD of theirs may be valid. */
const NEED_NAMESPACE = ['weft', 'loopback', 'bridge', 'ptp']

/** Bytes that are no call, and whether they get an answer. */
function nonsense(random: Random): Sending & { readonly answered: boolean } {
  const { line } = hostileLine(random, NOWHERE, NEED_NAMESPACE)
  const bytes = Buffer.from(`${line}\n`)
  const cut = random.below(bytes.length)
  switch (random.below(8)) {
    case 0:
      return {
        pieces: [Buffer.from(random.bytes(random.below(400)).map((byte) => (byte === 10 ? 11 : byte))), '\n'],
        last: 'wait',
        answered: true
      }
    case 1:
      return { pieces: [bytes.subarray(0, cut)], last: 'end', answered: false }
    case 2:
      return { pieces: [bytes.subarray(0, cut)], last: 'leave', answered: false }
    case 3:
      // A whole request; the caller disconnects before the answer.
      return { pieces: [bytes], last: 'leave', answered: false }
    case 4:
      return {
        pieces: [spoiledJson(random, treeOf(JSON.parse(line))).replaceAll('\n', ' '), '\n'],
        last: 'wait',
        answered: true
      }
    case 5:
      return { pieces: [jsonOf(oddTree(random)), '\n', line, '\n', 'x'], last: 'wait', answered: true }
    case 6:
      return { pieces: [controlLine(random), '\n'], last: 'end', answered: true }
    default:
      return { pieces: [spoiledText(random, line).replaceAll('\n', ' '), '\n'], last: 'wait', answered: true }
  }
}

function controlLine(random: Random): string {
  const question = {
    v: 1,
    ctl: random.pick(['status', 'diff', 'why', '__proto__', 'constructor', '']),
    args: [random.pick(ODD_TEXTS)]
  }
  return random.chance(0.5) ? JSON.stringify(question) : spoiledJson(random, treeOf(question)).replaceAll('\n', ' ')
}

/** A call without a namespace. If a plugin needs none, its ADD is undone. */
async function refusedCall(random: Random): Promise<void> {
  const { line, call, plugin } = hostileLine(random, NOWHERE)
  const bytes = Buffer.from(`${line}\n`)
  const cut = random.chance(0.1) ? random.below(bytes.length) : 0
  const pieces = cut === 0 ? [bytes] : [bytes.subarray(0, cut), bytes.subarray(cut)]
  const verb = call.env.CNI_COMMAND
  checkReply(await send({ pieces, last: random.chance(0.3) ? 'end' : 'wait' }), verb)
  if (verb !== 'ADD' || NEED_NAMESPACE.includes(plugin)) return
  await callToEnd(random, { ...call, env: { ...call.env, CNI_COMMAND: 'DEL' } }, plugin)
}

/**
 * Creates what the first pod of its kind creates and no DEL removes, so that it is not taken for a leftover: maps,
 * chains, an administrator's chain, a bridge's guard, weftd's socket to conntrack.
 */
async function createShared(): Promise<void> {
  const portMappings = ['tcp', 'udp'].map((protocol) => ({ hostPort: 8080, containerPort: 80, protocol }))
  for (const ipMasq of [true, false]) {
    const { pod, id } = await cluster.pod(node(), { mode: 'bridge', ipMasq, runtimeConfig: { portMappings } })
    await cluster.call(node(), 'DEL', id, pod.netns)
    await pod[Symbol.asyncDispose]()
  }
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.76.0.0/24' }], [{ subnet: 'fd00:76::/64' }]] }
  const first = { type: 'bridge', bridge: 'ground0', isGateway: true, ipMasq: true, macspoofchk: true, ipam }
  const { pod, id, result } = await cluster.pod(node(), first)
  const behind = [
    { type: 'portmap', masqAll: true, runtimeConfig: { portMappings } },
    ...['same-bridge', 'isolated'].map((ingressPolicy) => ({
      type: 'firewall',
      ingressPolicy,
      iptablesAdminChainName: ADMIN_CHAIN
    }))
  ]
  for (const config of behind) await cluster.call(node(), 'ADD', id, pod.netns, config, { prevResult: result })
  for (const config of [...behind, first]) await cluster.call(node(), 'DEL', id, pod.netns, config)
  await pod[Symbol.asyncDispose]()
}

/**
 * Maps and chains of host ports with conditions, of which there can be any number: empty ones and the rules that use
 * them.
 */
const CONDITIONED = /\t(map|chain) host_ports?_\w*__\w+ \{\n((?!\t\}|\t\telements).*\n)*\t\}\n+/g

/** What calls may not change, except their bridges. */
async function traces(options: { readonly bridges: boolean }): Promise<string> {
  const record = await recordOf(node(), { ...options, networks: false })
  return record.replaceAll(CONDITIONED, '').replaceAll(/\n\n+/g, '\n')
}

/** The daemon is still the process that was started, and serves. */
async function checkAlive(): Promise<void> {
  const daemon = cluster.daemon(1)
  assert.equal(daemon.program.ended, undefined, daemon.text.slice(-2_000))
  assert.equal(daemon.pid, pid)
  checkReply(await send({ pieces: ['{"v":1,"ctl":"status"}\n'], last: 'wait' }), 'any')
  assert.ok((await resident.pod.ping('10.244.0.1', { count: 1 })).received >= 0)
}

describe('the socket', { skip }, () => {
  before(async () => {
    cluster = await Cluster.start({ hosts: [1], start: false })
    heap = await HeapWatch.create(node())
    await cluster.join(cluster.node(1), { env: { NODE_OPTIONS: heap.nodeOptions } })
    resident = await cluster.pod(node())
    await createShared()
    pid = cluster.daemon(1).pid
    // Directories of reservations are in configurations: nothing outside the host's own mounts may be written.
    await node().sh('mkdir -p /run/weft-fuzz; mount -o remount,bind,ro /')
  })
  after(async () => {
    await heap?.[Symbol.asyncDispose]()
    await cluster?.[Symbol.asyncDispose]()
  })

  test('answers every line and survives any input, and an invalid call changes nothing', async () => {
    await campaignOf('socket: warm', 50, TOGETHER, async (random) => void (await send(nonsense(random))))
    const [record, open] = [await traces({ bridges: true }), await descriptors(pid)]
    await campaignOf('socket', casesOf(0.09), TOGETHER, async (random) => {
      if (random.chance(0.45)) return refusedCall(random)
      const { answered, ...sending } = nonsense(random)
      const line = await send(sending)
      if (answered) checkReply(line, 'any')
    })
    await checkAlive()
    assert.equal(await traces({ bridges: true }), record)
    await atMostOpen(pid, open)
  })

  test('accepts half lines of many callers at once and continues to serve others', async () => {
    const open = await descriptors(pid)
    const halves = Array.from({ length: 300 }, () => connect(node().path(SOCKET)))
    for (const half of halves) half.on('error', () => undefined).write('{"v":1,"plugin":"weft","stdin":"')
    await checkAlive()
    for (const half of halves) half.destroy()
    await atMostOpen(pid, open)
  })

  test('refuses a line longer than any configuration, and keeps nothing of it', async () => {
    const piece = Buffer.alloc(1 << 20, 'x')
    const pieces = Array.from({ length: longestLineBytes / piece.length + 2 }, () => piece)
    const before = await heap.reachableMiB(pid)
    for (let times = 0; times < 4; times++) {
      const line = await send({ pieces, last: 'wait' })
      if (line !== undefined) assert.match(line, /longer than/)
      assert.ok((await residentMiB(pid)) < MEMORY_LIMIT_MIB, `${await residentMiB(pid)} MiB`)
    }
    await checkAlive()
    const after = await heap.reachableMiB(pid)
    assert.ok(after - before < longestLineBytes / (1 << 20) / 4, `weftd's heap grew from ${before} to ${after} MiB`)
  })

  test('turns calls with a real namespace into a pod that DEL removes, or into nothing', async () => {
    const pods = await Promise.all(Array.from({ length: 4 }, (_, at) => node().pod(`fuzz-pod${at}`)))
    const before = await traces({ bridges: false })
    let added = 0
    await campaignOf('real namespaces', casesOf(0.004), pods.length, async (random, index) => {
      const pod = pods[index % pods.length] ?? assert.fail()
      const containerId = `fuzz-${index}`
      const plugin = random.pick(pluginTypes)
      const places = { namespaces: [pod.netns, pod.netns, pod.netns, '/dev/null'], containerIds: [containerId] }
      const call = hostileCall(random, plugin, { places, accept: (name) => name !== 'CNI_CONTAINERID' })
      const ask = (verb: string) => callToEnd(random, { ...call, env: { ...call.env, CNI_COMMAND: verb } }, plugin)
      if (/"exit":0/.test(await ask('ADD'))) added++
      await ask(random.pick(['CHECK', 'STATUS', 'ADD']))
      await ask('DEL')
      await ask('DEL')
    })
    assert.ok(added > 0, 'no ADD succeeded: the cases are too wild')
    await checkAlive()
    await until(async () => (await traces({ bridges: false })) === before, {
      what: 'the host to be as it was before',
      deadlineMs: 20_000
    }).catch(async () => assert.equal(await traces({ bridges: false }), before))
  })
})
