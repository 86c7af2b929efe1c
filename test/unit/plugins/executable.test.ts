// The built executable itself: the same calls as main.test.ts makes, through Rust and QuickJS, and what only a process
// can show.
import { deepEqual, equal, match } from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, link, mkdir, mkdtempDisposable, readFile, readlink, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import type { CniRequest } from '../../../plugins/protocol.ts'
import { pluginTypes } from '../../../plugins/types/registry.ts'
import { listen } from './daemon-on-socket.ts'

const weft = join(import.meta.dirname, '../../../dist/cni/weft')
const skip = existsSync(weft) ? false : 'dist/cni/weft is not built: run scripts/build-plugins'
const configuration = '{"name":"net1","cniVersion":"1.0.0","type":"weft"}'
const answered = JSON.stringify({ v: 1, exit: 0, stdout: '{"cniVersion":"1.0.0"}\n', stderr: '' })
const environment = (socketPath: string, verb = 'ADD') => ({
  CNI_COMMAND: verb,
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/c1',
  CNI_IFNAME: 'eth0',
  TRACEPARENT: '00-malformed',
  WEFTD_SOCKET: socketPath
})

type Ended = { readonly exit: number | null; readonly stdout: string; readonly stderr: string }

async function ended(child: ChildProcess): Promise<Ended> {
  let [stdout, stderr] = ['', '']
  child.stdout?.setEncoding('utf8').on('data', (piece: string) => (stdout += piece))
  child.stderr?.setEncoding('utf8').on('data', (piece: string) => (stderr += piece))
  const exit = await new Promise<number | null>((resolve, reject) => child.on('error', reject).on('close', resolve))
  return { exit, stdout, stderr }
}

function run(env: Record<string, string>, input: string | undefined, program = weft): Promise<Ended> {
  const child = spawn(program, { env, stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'] })
  child.stdin?.on('error', () => {}) // it may end without reading
  child.stdin?.end(input)
  return ended(child)
}

describe('the executable', { skip }, () => {
  test('is one file under every name of the registry, at most 3 MiB', async () => {
    const files = await Promise.all(pluginTypes.map((type) => stat(join(weft, '..', type))))
    equal(new Set(files.map((file) => file.ino)).size, 1)
    equal((files[0]?.size ?? 0) <= 3 * 1024 * 1024, true, `${files[0]?.size} bytes`)
  })
  test('VERSION works with standard input closed, empty, or garbage', async () => {
    for (const input of [undefined, '', '{{{']) {
      const { exit, stdout, stderr } = await run({ CNI_COMMAND: 'VERSION' }, input)
      deepEqual([exit, stderr], [0, ''])
      equal(JSON.parse(stdout).supportedVersions.length, 7)
    }
    const closed = await ended(spawn('/bin/sh', ['-c', `exec "${weft}" <&-`], { env: { CNI_COMMAND: 'VERSION' } }))
    equal(closed.exit, 0)
  })
  test('takes its name from argv, through links', async () => {
    await using daemon = await listen(() => answered)
    await symlink(weft, join(daemon.folder, 'bridge'))
    await link(weft, join(daemon.folder, 'portmap')).catch(() => symlink(weft, join(daemon.folder, 'portmap')))
    for (const name of ['bridge', 'portmap']) {
      await run(environment(daemon.socketPath), configuration, join(daemon.folder, name))
      match(
        (await run({}, '', join(daemon.folder, name))).stderr,
        new RegExp(`^${name}: CNI plugin of Weft \\d+\\.\\d+`)
      )
    }
    deepEqual(
      daemon.requests.map((request) => request.plugin),
      ['bridge', 'portmap']
    )
  })
  test('forwards a call and prints the answer', async () => {
    await using daemon = await listen(() => answered)
    const input = `${configuration}\n`
    deepEqual(await run({ ...environment(daemon.socketPath), HOME: '/x' }, input), {
      exit: 0,
      stdout: '{"cniVersion":"1.0.0"}\n',
      stderr: ''
    })
    const { WEFTD_SOCKET: _, ...env } = environment('')
    const namespace = await readlink('/proc/self/ns/net')
    const { dev, ino } = await stat('/')
    const root = `${dev}:${ino}`
    deepEqual(daemon.requests, [
      { v: 1, plugin: 'weft', namespace, root, env, stdin: input, deadlineMs: 100_000, did: [] }
    ])
  })
  test('sends the file that resolvConf names, if it is a small regular one', async () => {
    await using daemon = await listen(() => answered)
    await using folder = await mkdtempDisposable(join(tmpdir(), 'weft-resolv-'))
    const file = join(folder.path, 'conf')
    await writeFile(file, 'nameserver 10.0.0.53\n')
    await writeFile(join(folder.path, 'long'), 'x'.repeat(64 * 1024 + 1))
    execFileSync('mkfifo', [join(folder.path, 'fifo')])
    const sent = async (resolvConf: unknown, verb = 'ADD') => {
      const input = JSON.stringify({ name: 'net1', cniVersion: '1.0.0', IPAM: { type: 'host-local', resolvConf } })
      equal((await run(environment(daemon.socketPath, verb), input)).exit, 0)
      return daemon.requests.at(-1)?.resolvConf
    }
    deepEqual(await sent(file), { text: 'nameserver 10.0.0.53\n' })
    deepEqual(await sent(join(folder.path, 'long')), { reason: 'it is longer than 65536 bytes' })
    for (const no of [join(folder.path, 'fifo'), '/dev/zero', folder.path])
      deepEqual(await sent(no), { reason: 'it is not a regular file' })
    deepEqual(await sent('/nowhere'), { reason: 'No such file or directory' })
    for (const none of ['', undefined, 5, null]) equal(await sent(none), undefined)
    equal(await sent(file, 'DEL'), undefined)
  })
  test('prints what no UTF-8 can say, half a surrogate pair, as U+FFFD', async () => {
    const halves = { v: 1, exit: 0, stdout: 'a\ud800b\udc00\ud83d\udc19c', stderr: '\udfff' }
    await using daemon = await listen(() => JSON.stringify(halves))
    deepEqual(await run(environment(daemon.socketPath), configuration), {
      exit: 0,
      stdout: 'a\ufffdb\ufffd\ud83d\udc19c',
      stderr: '\ufffd'
    })
  })
  test('takes standard input one byte at a time, and bytes that are not UTF-8', async () => {
    await using daemon = await listen(() => answered)
    const child = spawn(weft, { env: environment(daemon.socketPath) })
    const result = ended(child)
    for (const byte of Buffer.concat([
      Buffer.from(`${configuration.slice(0, -1)},"x":"`),
      Buffer.from([0xff]),
      Buffer.from('ü"}')
    ])) {
      await new Promise((resolve) => child.stdin.write(Buffer.of(byte), resolve))
    }
    child.stdin.end()
    equal((await result).exit, 0)
    equal(daemon.requests[0]?.stdin, `${configuration.slice(0, -1)},"x":"\ufffdü"}`)
  })
  test('takes 8 MiB of configuration', async () => {
    await using daemon = await listen(() => answered)
    const input = `${configuration.slice(0, -1)},"x":"${'ü'.repeat(4 * 1024 * 1024)}"}`
    equal((await run(environment(daemon.socketPath), input)).exit, 0)
    equal(daemon.requests[0]?.stdin === input, true)
  })
  test('refuses more than 10 MiB of configuration, and standard input that is closed, with error 5', async () => {
    const { exit, stdout } = await run(environment('/nonexistent'), ' '.repeat(10 * 1024 * 1024 + 1))
    deepEqual([exit, JSON.parse(stdout).code], [1, 5])
    match(stdout, /longer than 10485760 bytes/)
    const closed = await ended(spawn('/bin/sh', ['-c', `exec "${weft}" <&-`], { env: environment('/nonexistent') }))
    deepEqual([closed.exit, JSON.parse(closed.stdout).code], [1, 5])
    match(closed.stdout, /Bad file descriptor/)
  })
})

describe('the executable without an answer', { skip }, () => {
  test('says which of missing, refused, too long a path it is', async () => {
    await using daemon = await listen(() => answered)
    const refused = join(daemon.folder, 'plain-file')
    await writeFile(refused, '')
    for (const [path, words] of [
      [join(daemon.folder, 'absent.sock'), /there is no socket/],
      [refused, /no process listens/],
      [`/${'x'.repeat(120)}`, /path is longer than 107 bytes/]
    ] as const) {
      const { exit, stdout } = await run(environment(path, 'DEL'), configuration)
      const error = JSON.parse(stdout)
      deepEqual([exit, error.code, error.cniVersion], [1, 11, '1.0.0'])
      match(error.msg, words)
      equal(error.msg.includes(path), true)
      equal(/not found|no such file or directory/i.test(stdout), false)
    }
  })
  test('says when weftd closes, and when it stays silent until the deadline', async () => {
    await using closing = await listen(() => undefined)
    match((await run(environment(closing.socketPath), configuration)).stdout, /"code":11.*closed the connection/)
    await using silent = await listen(() => new Promise<string>(() => {}))
    const late = await run({ ...environment(silent.socketPath), WEFTD_DEADLINE_MS: '50' }, configuration)
    match(late.stdout, /"code":11.*did not answer on .* within 50 ms/)
  })
  test('keeps the deadline when nobody accepts and the backlog is full', async () => {
    await using folder = await listen(() => answered)
    const path = join(folder.folder, 'full.sock')
    const holder = spawn(process.execPath, ['-e', holderScript, path], { stdio: ['pipe', 'pipe', 'inherit'] })
    const exited = new Promise((resolve) => holder.on('close', resolve))
    try {
      await new Promise((resolve) => holder.stdout.once('data', resolve))
      const runs = Array.from({ length: 6 }, () =>
        run({ ...environment(path), WEFTD_DEADLINE_MS: '300' }, configuration)
      )
      for (const { stdout } of await Promise.all(runs)) match(stdout, /did not answer on .* within 300 ms/)
    } finally {
      holder.stdin.end()
      await exited
    }
  })
})

/** Listens with room for one connection and then never returns to its loop until standard input ends. */
const holderScript = `
const server = require('node:net').createServer()
server.listen({ path: process.argv[1], backlog: 1 }, () => {
  process.stdout.write('ready\\n', () => { try { require('node:fs').readSync(0, Buffer.alloc(1)) } finally { process.exit(0) } })
})`

describe('delegates of the executable', { skip }, () => {
  async function delegate(script: string, deadlineMs = 10_000) {
    let folder = ''
    await using daemon = await listen((request: CniRequest) => {
      if (request.did.length > 0) return JSON.stringify({ v: 1, exit: 0, stdout: 'done' })
      const requested = {
        id: 'a',
        type: 'third',
        path: ['/nonexistent', folder],
        env: { CNI_COMMAND: 'DEL', NEW: 'n' },
        stdin: 'x'.repeat(300_000),
        deadlineMs
      }
      return JSON.stringify({ v: 1, run: requested })
    })
    folder = join(daemon.folder, 'bin')
    await mkdir(folder)
    const program = join(folder, 'third')
    await writeFile(program, script.replaceAll('FOLDER', folder))
    await chmod(program, 0o755)
    const result = await run({ ...environment(daemon.socketPath), PATH: '/usr/bin:/bin' }, configuration)
    const left = await readFile(join(folder, 'pid'), 'utf8').catch(() => '')
    return { result, did: daemon.requests[1]?.did[0], left: Number(left), program }
  }

  test('get pipes, their input, our environment with changes; status and both outputs come back', async () => {
    const { result, did } = await delegate(
      '#!/bin/sh\necho "$CNI_COMMAND $NEW $TRACEPARENT $(wc -c)"\necho note >&2\nexit 3\n'
    )
    deepEqual(did, { kind: 'ended', id: 'a', exit: 3, stdout: 'DEL n 00-malformed 300000\n', stderr: 'note\n' })
    deepEqual(result, { exit: 0, stdout: 'done', stderr: 'note\n' })
  })
  test('may leave their input unread', async () => {
    const { did } = await delegate('#!/bin/sh\nexec <&-\necho ok\n')
    deepEqual(did, { kind: 'ended', id: 'a', exit: 0, stdout: 'ok\n', stderr: '' })
  })
  test('may print more than a pipe holds', async () => {
    const { did } = await delegate('#!/bin/sh\nhead -c 1000000 /dev/zero | tr "\\0" a\n')
    equal(did?.kind === 'ended' && did.stdout.length, 1_000_000)
  })
  test('are not waited for through a grandchild that keeps their output open', async () => {
    const { did, left } = await delegate('#!/bin/sh\nsleep 600 &\necho $! > FOLDER/pid\necho ok\n')
    process.kill(left, 'SIGKILL') // it was left running, as a daemon of a plugin would be
    deepEqual(did, { kind: 'ended', id: 'a', exit: 0, stdout: 'ok\n', stderr: '' })
  })
  test('are killed at the deadline with all their children', async () => {
    const { did, left, program } = await delegate('#!/bin/sh\nsleep 600 &\necho $! > FOLDER/pid\nwait\n', 300)
    deepEqual(did, { kind: 'failed', id: 'a', reason: `${program} did not end within 300 ms and was killed` })
    equal(await isGone(left), true)
  })
  test('that cannot be executed are reported with the reason', async () => {
    const { did, program } = await delegate('#!/nonexistent/interpreter\n')
    deepEqual(did, { kind: 'failed', id: 'a', reason: `${program} cannot be run: No such file or directory` })
  })
})

/** A killed process is gone, or a zombie until its new parent has reaped it. */
async function isGone(pid: number): Promise<boolean> {
  const deadline = Date.now() + 5_000
  while (Date.now() < deadline) {
    const state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
    if (state === undefined || state.split(') ')[1]?.startsWith('Z')) return true
    await new Promise((resolve) => setImmediate(resolve))
  }
  return false
}
