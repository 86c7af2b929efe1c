// The pure layer under calls that nobody should make: environment × standard input → a Call and an Attachment, or a
// CniError; nothing else, ever.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { failed } from '../../daemon/cni/error-codes.ts'
import { parsePrefix } from '../../ipam/address.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { readCall, readEnvironment, versionForError } from '../../plugins/call.ts'
import { CniError, printError } from '../../plugins/cni/error.ts'
import { isObject } from '../../plugins/cni/field.ts'
import { parseDelegateResult, previousResult, printResult } from '../../plugins/cni/result.ts'
import type { Call } from '../../plugins/cni/types.ts'
import type { Answer, Ended, Host, Input } from '../../plugins/host.d.ts'
import { main } from '../../plugins/main.ts'
import { type Finished, ProtocolError, parseReply } from '../../plugins/protocol.ts'
import type { ForwardingPlugin } from '../../plugins/types/plugin.ts'
import { forwardingPluginNamed, pluginNamed, pluginTypes } from '../../plugins/types/registry.ts'
import { checkAnswer, checkError } from './answer.ts'
import { configuration, environment, hostileCall, VERSIONS } from './call.ts'
import { campaign, campaignOf, casesOf } from './campaign.ts'
import type { Random } from './random.ts'
import { hostileReply } from './reply.ts'
import { jsonOf, recasedTree, spoiledJson, treeOf } from './tree.ts'

const prototypeKeys = Object.getOwnPropertyNames(Object.prototype).join()

/** Nothing that came in may have reached what all objects share. */
const checkPrototype = () => assert.equal(Object.getOwnPropertyNames(Object.prototype).join(), prototypeKeys)

/** Runs `work`; only a CniError may come out, and it must print as one. */
function errorOnly<T>(work: () => T, stdin: string, verb: string | undefined): T | undefined {
  try {
    return work()
  } catch (thrown) {
    if (!(thrown instanceof CniError)) throw thrown
    checkError(printError(thrown, versionForError(stdin), verb), verb)
    return undefined
  }
}

/** Every value in what a plugin made is one that the daemon can work with. */
function checkValue(value: unknown, path: string): void {
  if (typeof value === 'number') assert.ok(Number.isSafeInteger(value), `${path} is ${value}`)
  else if (typeof value === 'bigint') assert.ok(value >= 0n && value < 1n << 128n, `${path} is ${value}`)
  else if (Array.isArray(value)) value.forEach((each, at) => void checkValue(each, `${path}[${at}]`))
  else if (isObject(value)) {
    assert.equal(Object.getPrototypeOf(value), Object.prototype, path)
    for (const [key, inner] of Object.entries(value)) checkValue(inner, `${path}.${key}`)
  } else assert.ok(['string', 'boolean'].includes(typeof value), `${path} is ${typeof value}`)
}

function checkAttachment(attachment: Attachment, call: NamedCall): void {
  const { network, containerId, ifname, plugin, because, hostPorts = [] } = attachment
  assert.deepEqual([network, containerId, ifname, plugin], [call.network, call.containerId, call.ifname, call.plugin])
  assert.ok(because.includes(network))
  checkValue(attachment, 'attachment')
  for (const { hostPort, containerPort } of hostPorts)
    for (const port of [hostPort, containerPort]) assert.ok(port > 0 && port < 65_536)
  if (attachment.ipam !== undefined) assert.ok(attachment.ipam.dataDir.startsWith('/'))
}

const facts = {
  network: { 4: parsePrefix('10.77.0.0/16') ?? assert.fail() },
  subnet: { 4: parsePrefix('10.77.1.0/24') ?? assert.fail() },
  mtu: 1450,
  ipMasq: false
}

/** A plugin that hands on to another: what it hands on must be as harmless. */
function forwarded(plugin: ForwardingPlugin, call: NamedCall, stdin: string): undefined {
  const files = errorOnly(() => plugin.files(call), stdin, call.verb)
  if (files !== undefined) assert.ok(files.subnetFile !== '' && files.stateDirectory !== '')
  const configuration = errorOnly(() => plugin.forward(call, facts), stdin, call.verb)
  const type = configuration?.type
  if (type === plugin.type || typeof type !== 'string' || pluginNamed(type) === undefined) return undefined
  const env = { CNI_COMMAND: call.verb, CNI_CONTAINERID: call.containerId, CNI_IFNAME: call.ifname, CNI_NETNS: '/x' }
  readAll(type, env, JSON.stringify(configuration))
  return undefined
}

type NamedCall = Exclude<Call, { readonly verb: 'VERSION' | 'GC' | 'STATUS' }>

function readAll(plugin: string, env: Readonly<Record<string, string>>, stdin: string): Attachment | undefined {
  const call = errorOnly(() => readCall(plugin, readEnvironment(env), stdin), stdin, env.CNI_COMMAND)
  if (call === undefined || call.verb === 'VERSION') return undefined
  const result = errorOnly(() => previousResult(call), stdin, call.verb)
  if (result !== undefined) errorOnly(() => printResult(call.version, result), stdin, call.verb)
  if (!('containerId' in call)) return undefined
  const forwarding = forwardingPluginNamed(plugin)
  if (forwarding !== undefined) return forwarded(forwarding, call, stdin)
  const found = pluginNamed(plugin)
  if (found === undefined) return undefined
  const attachment = errorOnly(() => found.attachment(call), stdin, call.verb)
  if (attachment !== undefined) checkAttachment(attachment, call)
  return attachment
}

describe('the pure layer', () => {
  test('makes of any call an attachment or an error of the specification', () => {
    const understood = new Set<string>()
    campaign('calls', casesOf(0.5), (random) => {
      const plugin = random.pick(pluginTypes)
      const { env, stdin } = hostileCall(random, plugin)
      if (readAll(plugin, env, stdin) !== undefined) understood.add(`${env.CNI_COMMAND} of ${plugin}`)
      checkPrototype()
    })
    const types = pluginTypes.filter((type) => pluginNamed(type) !== undefined)
    assert.deepEqual(
      types.map((type) => `ADD of ${type}`).filter((call) => !understood.has(call)),
      [],
      'never understood: the cases are too wild to reach these plugins'
    )
  })

  test('reads keys in any letter case as the same call', () => {
    let same = 0
    campaign('letter case', casesOf(0.04), (random) => {
      const plugin = random.pick(pluginTypes)
      const env = environment(random)
      const tree = treeOf(configuration(random, plugin))
      // Keys of these objects are names of the user's own.
      const other = jsonOf(recasedTree(random, tree, ['sysctl', 'aliases', 'io.kubernetes.cri.pod-annotations']))
      const [first, second] = [readAll(plugin, env, jsonOf(tree)), readAll(plugin, env, other)]
      assert.deepEqual(second, first)
      if (first !== undefined) same++
    })
    assert.ok(same > 0)
  })

  test('understands any nesting, size and number of keys, or says which it does not', () => {
    for (const depth of [100, 10_000, 100_000]) {
      for (const key of ['cniVersion', 'name', 'ipam', 'prevResult', 'runtimeConfig', 'dns', 'other']) {
        const deep = `${'['.repeat(depth)}${']'.repeat(depth)}`
        const stdin = `{"cniVersion":"1.1.0","name":"fuzz-net",${JSON.stringify(key)}:${deep}}`
        const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'a', CNI_NETNS: '/x', CNI_IFNAME: 'eth0' }
        for (const plugin of pluginTypes) readAll(plugin, env, stdin)
      }
    }
    const wide = JSON.stringify(Object.fromEntries(Array.from({ length: 20_000 }, (_, at) => [`k${at}`, at])))
    const env = { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'a', CNI_IFNAME: 'eth0' }
    assert.ok(readAll('weft', env, `{"name":"fuzz-net",${wide.slice(1)}`))
  })

  test('reads what a delegate printed, or says what is wrong with it', () => {
    campaign('results of delegates', casesOf(0.04), (random) => {
      const version = random.pick(VERSIONS)
      const text = spoiledJson(random, treeOf(configuration(random, 'weft').prevResult ?? { cniVersion: version }))
      const result = errorOnly(() => parseDelegateResult(text, 'third', version), text, 'ADD')
      if (result !== undefined) errorOnly(() => printResult(version, result), text, 'ADD')
    })
  })

  test('answers for itself when nothing of a call can be read', () => {
    campaign('errors without a call', casesOf(0.02), (random) => {
      const { env, stdin } = hostileCall(random, 'weft')
      const answer = failed(new CniError('msg not found', { code: 999, details: 'look' }), { env, stdin })
      checkAnswer(answer, env.CNI_COMMAND)
    })
  })
})

function finishedIn(line: string): Finished | undefined {
  try {
    const reply = parseReply(line)
    return 'run' in reply ? undefined : reply
  } catch (error) {
    if (error instanceof ProtocolError) return undefined
    throw error
  }
}

/** A host whose daemon answers with anything. */
class HostOfLies implements Host {
  readonly program: string
  readonly environment: readonly string[]
  output = ''
  error = ''
  /** The last word of the daemon, when it could be understood. */
  said: Finished | undefined
  readonly #random: Random
  readonly #stdin: string

  constructor(random: Random, environment: readonly string[], stdin: string) {
    this.program = random.pick(['/opt/cni/bin/weft', 'weft', '', '/', 'loopback', '/opt/cni/bin/ä'])
    this.environment = environment
    this.#random = random
    this.#stdin = stdin
  }

  readInput(): Input {
    return this.#random.chance(0.02)
      ? { kind: 'failed', reason: 'Bad file descriptor' }
      : { kind: 'text', text: this.#stdin }
  }

  write(stream: 'output' | 'error', text: string): void {
    this[stream] += text
  }

  readLink(): string {
    return this.#random.pick(['', 'net:[1]', 'x'] as const)
  }

  readText(): Input {
    return this.#random.chance(0.5)
      ? { kind: 'failed', reason: 'no such file' }
      : { kind: 'text', text: 'nameserver x' }
  }

  identity(): string {
    return this.#random.pick(['', '1:2', 'x'] as const)
  }

  isFile(): boolean {
    return this.#random.chance(0.5)
  }

  request(): Answer {
    const kind = this.#random.pick([
      'line',
      'line',
      'line',
      'missing',
      'refused',
      'denied',
      'closed',
      'deadline',
      'failed'
    ] as const)
    if (kind !== 'line') return { kind, reason: 'for no reason' }
    const line = hostileReply(this.#random)
    this.said = finishedIn(line)
    return { kind, line }
  }

  spawn(): Ended {
    const kind = this.#random.pick(['exited', 'killed', 'deadline', 'failed'] as const)
    return kind === 'failed'
      ? { kind, reason: 'x' }
      : { kind, status: this.#random.below(256), stdout: '{', stderr: 'e' }
  }
}

/** An environment as execve takes it: in any order, names twice, entries without "=". */
function rawEnvironment(random: Random, env: Readonly<Record<string, string>>): readonly string[] {
  const entries = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  if (random.chance(0.2))
    entries.push(
      random.pick(['', '=', '=x', 'CNI_COMMAND', 'CNI_IFNAME=', 'WEFTD_DEADLINE_MS=-1', 'WEFTD_DEADLINE_MS=1e9'])
    )
  if (random.chance(0.2)) entries.unshift(random.pick(entries))
  return entries
}

test('the executable prints one answer and no more, whatever it is given and told', async () => {
  await campaignOf('main', casesOf(0.1), 1, async (random) => {
    const { env, stdin } = hostileCall(random, 'weft')
    const host = new HostOfLies(random, rawEnvironment(random, env), stdin)
    const exit = await main(host)
    assert.ok(Number.isInteger(exit) && exit >= 0 && exit < 256, `exit ${exit}`)
    checkPrototype()
    if (host.said !== undefined) return assert.deepEqual([exit, host.output], [host.said.exit, host.said.stdout])
    // Of a name that is given twice the last counts.
    const command = host.environment.findLast((each) => each.startsWith('CNI_COMMAND='))?.slice('CNI_COMMAND='.length)
    if (exit !== 0) return void checkError(host.output, command)
    if (host.output !== '') assert.equal(JSON.parse(host.output).supportedVersions.length, 7)
  })
})
