// weftctl against a real unix socket: requests, printed replies, and errors without a daemon.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import { diffAnswer, statusAnswer } from '../../../daemon/api/answers.ts'
import { type Deps, run } from '../../../daemon/ctl/run.ts'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import type { Node } from '../../../daemon/state/node.ts'
import { type Ip, type Prefix, parseIp, parsePrefix } from '../../../ipam/address.ts'
import { parseRequest, protocolVersion } from '../../../plugins/protocol.ts'

const prefix = (text: string) => parsePrefix(text) as Prefix
const ip = (text: string) => parseIp(text) as Ip
const node: Node = {
  name: 'one',
  identity: 'x',
  device: 'eth0',
  deviceMtu: 1500,
  addresses: [],
  localIp: { 4: ip('192.0.2.1') },
  publicIp: { 4: ip('198.51.100.1') },
  subnet: { 4: prefix('10.244.1.0/24'), 6: prefix('fd00:1::/64') },
  remembered: {},
  ipv6: false,
  links: []
}
const facts = {
  version: '1.2.3',
  startedAt: 1_767_225_600_000,
  name: 'one',
  store: 'etcd',
  peers: 2,
  pods: 5,
  conditions: []
}
const ready = { ...facts, node, backend: 'vxlan', network: { 4: { network: prefix('10.244.0.0/16') } } }
const noLease = {
  ...CONDITIONS.NO_LEASE,
  code: 'NO_LEASE',
  detail: 'etcd is silent',
  since: 1_767_225_600_000
} as const

/** A daemon that gives `reply` to whatever is asked; collects the questions. */
async function daemon(t: test.TestContext, reply: (line: string) => string | undefined) {
  const folder = await mkdtemp(join(tmpdir(), 'weftctl-'))
  const socket = join(folder, 'weftd.sock')
  const questions: string[] = []
  const server = createServer((connection) => {
    connection.on('error', () => {})
    connection.on('data', (line) => {
      questions.push(line.toString())
      const answer = reply(line.toString())
      if (answer !== undefined) connection.end(answer)
    })
    t.after(() => connection.destroy())
  }).listen(socket)
  await once(server, 'listening')
  t.after(async () => {
    server.close()
    await rm(folder, { recursive: true })
  })
  return { socket, questions }
}

async function weftctl(words: readonly string[], env: Record<string, string> = {}, as: Partial<Deps> = {}) {
  const said = { out: '', complaints: '' }
  const exit = await run(words, {
    ...as,
    env,
    version: '1.2.3',
    out: (text) => {
      said.out += text
    },
    complain: (text) => {
      said.complaints += text
    }
  })
  return { exit, ...said }
}

const answering = (answer: unknown) => () => `${JSON.stringify({ v: protocolVersion, answer })}\n`

test('status of a node that is ready', async (t) => {
  const { socket, questions } = await daemon(t, answering(statusAnswer(ready)))
  const { exit, out, complaints } = await weftctl(['status', `--socket=${socket}`])
  assert.equal(
    out,
    `one: ready (weftd 1.2.3)
  subnet        10.244.1.0/24, fd00:1::/64
  network       10.244.0.0/16
  public IP     198.51.100.1
  interface     eth0, MTU 1500, 192.0.2.1
  backend       vxlan
  store         etcd
  other nodes   2
  pods here     5
  running since 2026-01-01T00:00:00.000Z
`
  )
  assert.deepEqual([exit, complaints], [0, ''])
  assert.deepEqual(questions.map(parseRequest), [{ v: protocolVersion, ctl: 'status', args: [] }])
})

test('status of a node without a lease has the cure and exit status 1', async (t) => {
  const { socket } = await daemon(t, answering(statusAnswer({ ...facts, conditions: [noLease] })))
  const { exit, out } = await weftctl(['status'], { WEFTCTL_SOCKET: socket })
  assert.equal(exit, 1)
  assert.match(out, /^one: NOT READY/)
  assert.match(out, /^ {2}subnet {8}\(not known yet\)$/m)
  assert.match(out, /^ {2}other nodes {3}\(not known yet\)$/m, 'which lease is its own is not known either')
  assert.match(
    out,
    /^ERROR NO_LEASE, no pod can be set up, \/readyz is 503, since 2026-01-01T00:00:00.000Z\n {2}this node has no subnet: etcd is silent. Cure: /m
  )
})

test('the first line of a node that serves pods says what is broken all the same', async (t) => {
  const down = { ...noLease, ...CONDITIONS.LINK_DOWN, code: 'LINK_DOWN', detail: 'eth0 has no carrier' } as const
  const { socket } = await daemon(t, answering(statusAnswer({ ...ready, conditions: [down] })))
  const { exit, out } = await weftctl(['status', '--socket', socket])
  assert.match(out, /^one: ready, but LINK_DOWN \(weftd 1\.2\.3\)\n/)
  assert.equal(exit, 0)
})

test('--json prints the answer itself and keeps the exit status', async (t) => {
  const answer = statusAnswer({ ...ready, conditions: [noLease] })
  const { socket } = await daemon(t, answering(answer))
  const { exit, out } = await weftctl(['--json', 'status', '--socket', socket])
  assert.deepEqual(JSON.parse(out), answer)
  assert.equal(exit, 1)
})

test('diff prints a line per change with who asks, and nothing to do is exit status 0', async (t) => {
  const wanted = {
    kind: 'route',
    table: 254,
    destination: prefix('10.244.3.0/24'),
    metric: 0,
    type: 'unicast',
    device: 'eth0',
    protocol: 1,
    because: 'lease of two'
  } as const
  const answer = diffAnswer([{ do: 'put', object: wanted }])
  assert.equal(answer.changes[0]?.because, 'lease of two')
  const { socket } = await daemon(t, answering(answer))
  const { exit, out } = await weftctl(['diff', '--socket', socket])
  assert.match(out, /^\+ .*10\.244\.3\.0\/24.*lease of two\n$/)
  assert.equal(exit, 1)
  const same = await daemon(t, answering(diffAnswer([])))
  const nothing = await weftctl(['diff', '--socket', same.socket])
  assert.deepEqual([nothing.exit, nothing.out.split('\n').length], [0, 2])
  const removed = { do: 'remove', object: wanted } as const
  const waiting = await daemon(t, answering(diffAnswer([{ do: 'put', object: wanted }, removed], 'the list')))
  const waits = await weftctl(['diff', '--socket', waiting.socket])
  const [head, ...lines] = waits.out.trimEnd().split('\n')
  assert.equal(head, 'not decided: weftd waits for the list; nothing will be removed until then')
  assert.deepEqual([waits.exit, lines.map((line) => line[0])], [4, ['+']])
  const json = await weftctl(['diff', '--json', '--socket', waiting.socket])
  const { changes, waitsFor } = JSON.parse(json.out)
  assert.deepEqual([json.exit, changes.length, waitsFor], [4, 2, 'the list'])
})

test('what the daemon says is wrong is printed with its cure', async (t) => {
  const error = { code: 'X', message: 'the question is unknown', cure: 'upgrade weftd' }
  const { socket } = await daemon(t, () => `${JSON.stringify({ v: protocolVersion, error })}\n`)
  const { exit, complaints } = await weftctl(['diff', '--socket', socket])
  assert.deepEqual([exit, complaints], [3, 'weftctl: the question is unknown\ncure: upgrade weftd\n'])
})

test('no daemon, a daemon that hangs up, stays silent or speaks otherwise: each has its cause and cure', async (t) => {
  const none = await weftctl(['status', '--socket=/nonexistent/weftd.sock'])
  assert.equal(none.exit, 3)
  assert.match(
    none.complaints,
    /does not answer on \/nonexistent\/weftd\.sock: .*ENOENT.*\ncure: start weftd .*--socket/
  )

  const hangsUp = await daemon(t, () => '')
  assert.match(
    (await weftctl(['status', '--socket', hangsUp.socket])).complaints,
    /closed the connection without an answer/
  )

  const silent = await daemon(t, () => undefined)
  const late = await weftctl(['status', '--timeout=1', '--socket', silent.socket])
  assert.match(late.complaints, /timeout\ncure: .*--timeout/)

  const other = await daemon(t, () => '{"v":99}\n')
  assert.match(
    (await weftctl(['status', '--socket', other.socket])).complaints,
    /not understood.*\ncure: .*same release/
  )

  const partial = await daemon(t, answering({ version: '9', ready: 'yes' }))
  assert.match(
    (await weftctl(['status', '--socket', partial.socket])).complaints,
    /ready is "yes", but must be of type boolean/
  )
})

test('wrong words are exit status 2 and named with the nearest', async () => {
  const typo = await weftctl(['staus'])
  assert.equal(typo.exit, 2)
  assert.match(typo.complaints, /there is no command "staus"; the nearest is status/)
  assert.equal((await weftctl([])).exit, 2)
  assert.match((await weftctl(['status', '--jsno'])).complaints, /nearest is --json/)
  assert.match((await weftctl(['constructor'])).complaints, /no command "constructor"/)
})

test('complaints and cures bear the name that was called', async () => {
  const daemon = { isDaemon: true }
  for (const [words, as, complaints] of [
    [['completion'], daemon, 'weftd: completion needs bash|zsh|fish\ncure: run weftd completion bash|zsh|fish\n'],
    [['completion', 'foo'], daemon, 'weftd: completion has no "foo"\ncure: run weftd completion bash|zsh|fish\n'],
    [['man', 'weftctl'], daemon, 'weftd: man takes no argument "weftctl"\ncure: run weftd man\n'],
    [
      ['why'],
      { isPlugin: true },
      'kubectl weft: why needs pod|node|address\ncure: run kubectl weft why pod|node|address NAME [to pod|node|address NAME]\n'
    ],
    [['version'], {}, 'weftctl: there is no command "version"\ncure: write weftctl --version\n']
  ] as const) {
    const said = await weftctl(words, {}, as)
    assert.deepEqual([said.exit, said.complaints], [2, complaints])
  }
  const page = await weftctl(['man'], {}, daemon)
  assert.match(page.out, /^\.TH WEFTD 8/)
})

test('help lists commands and flags', async () => {
  for (const words of [['--help'], ['help'], ['-help'], ['help', 'nothing']]) {
    const { exit, out } = await weftctl(words)
    assert.equal(exit, 0)
    for (const part of ['status', 'diff', '--socket', '--json', 'Exit status']) assert.ok(out.includes(part), part)
  }
  assert.equal((await weftctl(['--version'])).out, 'weftctl 1.2.3\n')
})

test('help about one command describes it and the flags, in lines of 80', async () => {
  for (const words of [
    ['check', '--help'],
    ['help', 'check']
  ]) {
    const { exit, out } = await weftctl(words)
    assert.equal(exit, 0)
    assert.match(out, /^Usage:\n {2}weftctl check \[NODES\]\n {6}try the path/)
    assert.match(out, /exit status: 0 all of them answered[\s\S]*--json/)
    assert.doesNotMatch(out, /weftctl nodes/)
  }
  const { out } = await weftctl(['--help'])
  for (const line of out.split('\n')) assert.ok(line.length <= 80, line)
})
