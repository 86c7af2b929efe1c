// The daemon's socket: lines in and out, limits, many callers at once, a stale file, a running daemon, stopping.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { type ServerOptions, serve } from '../../../daemon/api/server.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { type CniRequest, parseControlReply, parseReply, type Reply } from '../../../plugins/protocol.ts'
import { silent } from '../logs.ts'

let directory = ''
const path = () => join(directory, 'run', 'weftd.sock')
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'weft-server-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const finished = (stdout: string): Reply => ({ v: 1, exit: 0, stdout, stderr: '' })
const start = (over: Partial<ServerOptions> = {}) =>
  serve({ path: path(), cni: async ({ stdin }) => finished(stdin), control: new Map(), log: silent, ...over })

const request = (over: Partial<CniRequest> = {}): string =>
  JSON.stringify({
    v: 1,
    plugin: 'weft',
    env: { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c1' },
    stdin: '{}',
    deadlineMs: 60_000,
    did: [],
    ...over
  })

/** Sends the parts one after the other and reads to the end. */
async function ask(...parts: readonly (string | Buffer)[]): Promise<string> {
  const socket = connect(path())
  await once(socket, 'connect')
  for (const part of parts) await new Promise((resolve) => socket.write(part, resolve))
  return read(socket)
}

async function read(socket: Socket): Promise<string> {
  let text = ''
  for await (const chunk of socket) text += String(chunk)
  return text
}

/** Writes a byte now and then until one of the events: a writer sees the end of the connection as EPIPE. */
async function letGo(socket: Socket, ...events: readonly ('error' | 'close')[]): Promise<void> {
  const ended = Promise.race(events.map((event) => new Promise((resolve) => socket.on(event, resolve))))
  const dribble = setInterval(() => socket.write('x'), 10)
  try {
    await ended
  } finally {
    clearInterval(dribble)
    socket.destroy()
  }
}

/** A process that listens at a path and accepts nothing, as a daemon that is too busy. */
async function stoppedListener(at: string): Promise<ChildProcess> {
  const script = `require('node:net').createServer().listen({ path: ${JSON.stringify(at)}, backlog: 1 }, () => process.kill(process.pid, 'SIGSTOP'))`
  const child = spawn(process.execPath, ['-e', script], { stdio: 'ignore' })
  while (!/\) T /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8')))
    await new Promise((resolve) => setTimeout(resolve, 10))
  return child
}

const errorIn = (reply: Reply) =>
  'exit' in reply ? (JSON.parse(reply.stdout) as { readonly code: number; readonly msg: string }) : assert.fail()

describe('the socket', () => {
  it('answers one line with one line, and is for its owner only', async () => {
    await using _server = await start()
    assert.equal(await ask(`${request({ stdin: 'grüße\n' })}\n`), `${JSON.stringify(finished('grüße\n'))}\n`)
    assert.equal(statSync(path()).mode & 0o777, 0o600)
    assert.equal(statSync(join(directory, 'run')).mode & 0o777, 0o700)
  })

  it('reads a line that arrives in pieces, cut inside a character too, and ignores what follows it', async () => {
    await using _server = await start()
    const line = Buffer.from(`${request({ stdin: 'ü' })}\nmore`)
    const at = line.indexOf(0xc3) + 1
    assert.deepEqual(parseReply(await ask(line.subarray(0, 3), line.subarray(3, at), line.subarray(at))), finished('ü'))
  })

  it('answers nonsense with an error that both kinds of caller understand', async () => {
    await using _server = await start()
    for (const nonsense of [
      '',
      'x',
      '{',
      '[]',
      'null',
      '{"v":1}',
      '{"v":2,"ctl":"status","args":[]}',
      request({ env: { CNI_COMMAND: 7 } as never })
    ]) {
      const answer = await ask(`${nonsense}\n`)
      const error = errorIn(parseReply(answer))
      assert.equal(error.code, 6, nonsense)
      assert.match(error.msg, /the request is not understood/)
      const control = parseControlReply(answer)
      assert.equal('error' in control && control.error.code, 'PROTOCOL')
    }
    assert.deepEqual(parseReply(await ask(`${request()}\n`)), finished('{}'))
  })

  it('refuses a line that is too long without reading all of it', async () => {
    await using _server = await start({ longestLineBytes: 1000 })
    for (const end of ['', '\n']) {
      const socket = connect(path())
      socket.on('error', () => undefined)
      await once(socket, 'connect')
      socket.write(`${'x'.repeat(5000)}${end}`)
      assert.match(errorIn(parseReply(await read(socket))).msg, /longer than 1000 bytes/)
    }
  })

  it('closes at once when a caller disconnects with the answer unread and data in the queue', {
    timeout: 60_000
  }, async () => {
    const { promise: refused, resolve } = Promise.withResolvers<void>()
    const log = { ...silent, warn: () => resolve() }
    const server = await start({ longestLineBytes: 1000, lineDeadline: 600_000, log })
    const socket = connect({ path: path(), allowHalfOpen: true })
    socket.pause()
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    socket.write('x'.repeat(5000))
    await refused
    await new Promise((resolve) => setImmediate(resolve))
    // More than the server takes in one turn, and not read before the end is there too.
    socket.write('x'.repeat(150_000))
    socket.destroy()
    await server[Symbol.asyncDispose]()
  })

  for (const [what, first] of [
    ['whose line does not end in time, however often a byte of it arrives', ''],
    ['that has its answer and does not disconnect, whatever else it sends', `${request()}\n`]
  ] as const) {
    it(`disconnects a caller ${what}`, async () => {
      await using _server = await start({ lineDeadline: 100 })
      const socket = connect({ path: path(), allowHalfOpen: true })
      socket.write(first)
      await letGo(socket, 'error', 'close')
      assert.deepEqual(parseReply(await ask(`${request()}\n`)), finished('{}'))
    })
  }

  it('sends all of an answer that is larger than any queue, and disconnects a caller that does not read it', async () => {
    const cni = async () => finished('x'.repeat(3 << 20))
    {
      await using _server = await start({ cni })
      assert.deepEqual(parseReply(await ask(`${request()}\n`)), await cni())
    }
    await using _server = await start({ cni, lineDeadline: 100 })
    const socket = connect({ path: path(), allowHalfOpen: true })
    await once(socket, 'connect')
    socket.pause()
    socket.write(`${request()}\n`)
    await letGo(socket, 'error')
  })

  it('serves again once descriptors are free after all were in use', () => {
    const file = (name: string) => JSON.stringify(new URL(`../../../daemon/api/${name}`, import.meta.url).href)
    const script = `
      import { closeSync, openSync } from 'node:fs'
      import { connect } from 'node:net'
      const { serve } = await import(${file('server.ts')})
      let isFailing = false
      const error = (fields, message) => console.log(message, isFailing = true)
      const log = { info() {}, warn() {}, debug() {}, error }
      const control = new Map([['echo', async () => 'here']])
      await using server = await serve({ path: ${JSON.stringify(path())}, cni: async () => undefined, control, log })
      const idle = []
      const more = () => new Promise((resolve) => {
        const socket = connect(${JSON.stringify(path())})
        idle.push(socket)
        socket.on('error', () => resolve(false)).on('connect', () => setTimeout(resolve, 1, true))
      })
      while (!isFailing && await more());
      for (const socket of idle.splice(0)) socket.destroy()
      const files = []
      try { for (;;) files.push(openSync('/dev/null')) } catch {}
      // One for the caller, none for the server.
      closeSync(files.pop())
      await more()
      await more()
      for (const file of files) closeSync(file)
      for (const socket of idle) socket.destroy()
      const socket = connect(${JSON.stringify(path())})
      socket.write('{"v":1,"ctl":"echo","args":[]}\\n')
      for await (const chunk of socket) process.stdout.write(chunk)
      process.exit(0)`
    const shell = 'ulimit -n 64; exec "$0" --input-type=module -e "$1"'
    const { stdout, stderr } = spawnSync('sh', ['-c', shell, process.execPath, script], {
      encoding: 'utf8',
      timeout: 60_000
    })
    assert.match(stdout, /the socket failed.*"answer":"here"/s, stderr)
  })

  it("answers weftctl by the table, with the error's code and cure, or with the names that it knows", async () => {
    const control = new Map([
      ['echo', async (args: readonly string[]) => ({ args })],
      ['fail', () => Promise.reject(new WeftError('NO_LEASE', 'no lease', 'wait'))],
      ['crash', () => Promise.reject(new TypeError('oops'))]
    ])
    await using _server = await start({ control })
    const question = async (ctl: string) =>
      parseControlReply(await ask(`${JSON.stringify({ v: 1, ctl, args: ['a'] })}\n`))
    assert.deepEqual(await question('echo'), { v: 1, answer: { args: ['a'] } })
    assert.deepEqual(await question('fail'), { v: 1, error: { code: 'NO_LEASE', message: 'no lease', cure: 'wait' } })
    for (const [ctl, code] of [
      ['crash', 'INTERNAL'],
      ['what', 'UNKNOWN_QUESTION']
    ] as const) {
      const answer = await question(ctl)
      assert.equal('error' in answer && answer.error.code, code)
    }
  })
})

describe('calls', () => {
  /** Calls that wait until they are let go. */
  function gate() {
    const waiting: ((reply: Reply) => void)[] = []
    let most = 0
    const cni = ({ stdin }: CniRequest) => {
      const { promise, resolve } = Promise.withResolvers<Reply>()
      waiting.push(() => resolve(finished(stdin)))
      most = Math.max(most, waiting.length)
      return promise
    }
    return { cni, waiting, most: () => most, next: () => waiting.shift()?.(finished('')) }
  }

  const condition = async (what: string, holds: () => boolean) => {
    const end = performance.now() + 30_000
    while (!holds()) {
      assert.ok(performance.now() < end, `waited in vain for ${what}`)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  it('run concurrently up to the limit, the others after them; all are answered', async () => {
    const held = gate()
    await using _server = await start({ cni: held.cni, mostRunning: 3 })
    let done = 0
    const each = async (at: number) => {
      const line = await ask(`${request({ stdin: String(at) })}\n`)
      done++
      return line
    }
    const answers = Promise.all(Array.from({ length: 200 }, (_, at) => each(at)))
    await condition('the first three', () => held.waiting.length === 3)
    await condition('the rest', () => {
      held.next()
      return done === 200
    })
    assert.equal(held.most(), 3)
    assert.deepEqual(
      (await answers)
        .map((line) => (parseReply(line) as { stdout: string }).stdout)
        .map(Number)
        .sort((a, b) => a - b),
      [...Array(200).keys()]
    )
  })

  it('that wait longer than their caller get an error to try again and are never run', async () => {
    const held = gate()
    await using _server = await start({ cni: held.cni, mostRunning: 1 })
    const first = ask(`${request({ stdin: 'first' })}\n`)
    await condition('the first', () => held.waiting.length === 1)
    const error = errorIn(parseReply(await ask(`${request({ stdin: 'late', deadlineMs: 50 })}\n`)))
    assert.equal(error.code, 11)
    assert.match(error.msg, /could not finish ADD for container c1 within 50 ms: 1 calls are running/)
    held.next()
    assert.deepEqual(parseReply(await first), finished('first'))
    assert.equal(held.most(), 1)
  })

  it('of callers that disconnected do no harm', async () => {
    const held = gate()
    await using _server = await start({ cni: held.cni })
    const socket = connect(path())
    await once(socket, 'connect')
    socket.write(`${request()}\n`)
    await condition('the call', () => held.waiting.length === 1)
    socket.destroy()
    held.next()
    const second = ask(`${request({ stdin: 'second' })}\n`)
    await condition('the second', () => held.waiting.length === 1)
    held.next()
    assert.deepEqual(parseReply(await second), finished('second'))
  })

  it('that run are finished when the daemon stops, waiting ones get an error to try again, and the file is removed', async () => {
    const held = gate()
    const server = await start({ cni: held.cni, mostRunning: 1 })
    const first = ask(`${request({ stdin: 'first' })}\n`)
    await condition('the first', () => held.waiting.length === 1)
    const socket = connect(path())
    await once(socket, 'connect')
    socket.write(`${request({ stdin: 'second' })}\n${' '.repeat(10)}`)
    const second = read(socket)
    // A line that the server has read is answered; a control question behind it proves that it has.
    await ask(`${JSON.stringify({ v: 1, ctl: 'none', args: [] })}\n`)
    const stopped = server[Symbol.asyncDispose]()
    assert.match(errorIn(parseReply(await second)).msg, /weftd is stopping/)
    held.next()
    assert.deepEqual(parseReply(await first), finished('first'))
    await stopped
    assert.equal(statSync(path(), { throwIfNoEntry: false }), undefined)
  })

  it('of weftctl do not keep the daemon from stopping, and are answered that it does', {
    timeout: 60_000
  }, async () => {
    const { promise: asked, resolve } = Promise.withResolvers<void>()
    const why = () => {
      resolve()
      return new Promise(() => undefined)
    }
    const control = new Map([['why', why]])
    const server = await start({ control })
    const answer = ask(`${JSON.stringify({ v: 1, ctl: 'why', args: [] })}\n`)
    await asked
    await server[Symbol.asyncDispose]()
    const reply = parseControlReply(await answer)
    assert.equal('error' in reply && reply.error.code, 'STOPPING')
  })
})

describe('a socket file that exists already', () => {
  it('is replaced when no process listens', async () => {
    mkdirSync(join(directory, 'run'))
    // A daemon that was killed leaves its file: bind without ever removing it.
    spawnSync(process.execPath, [
      '-e',
      `require('node:net').createServer().listen(${JSON.stringify(path())}, () => process.kill(process.pid, 'SIGKILL'))`
    ])
    assert.ok(statSync(path()).isSocket())
    await using _server = await start()
    assert.deepEqual(parseReply(await ask(`${request()}\n`)), finished('{}'))
  })

  it('of a running daemon is an error that says so, and that daemon continues', async () => {
    await using _server = await start()
    await assert.rejects(
      start(),
      (error: WeftError) => error.code === 'DAEMON_RUNNING' && error.message.includes(path())
    )
    assert.deepEqual(parseReply(await ask(`${request()}\n`)), finished('{}'))
  })

  it('of a running daemon with a full queue is not taken over', async () => {
    mkdirSync(join(directory, 'run'))
    const daemon = await stoppedListener(path())
    const callers: Socket[] = []
    const isQueued = async () => {
      const socket = connect(path())
      callers.push(socket)
      return once(socket, 'connect').then(
        () => true,
        () => false
      )
    }
    try {
      while (await isQueued());
      await assert.rejects(start(), { code: 'DAEMON_RUNNING' })
    } finally {
      for (const caller of callers) caller.destroy()
      daemon.kill('SIGKILL')
    }
  })

  it('that is no socket is an error, and is kept', async () => {
    mkdirSync(join(directory, 'run'))
    writeFileSync(path(), 'mine')
    await assert.rejects(
      start(),
      (error: WeftError) => error.code === 'SOCKET_UNUSABLE' && error.message.includes(path())
    )
    assert.equal(readFileSync(path(), 'utf8'), 'mine')
  })

  it('with an impossible path is an error with the path', async () => {
    await assert.rejects(
      start({ path: `${directory}/${'x'.repeat(200)}.sock` }),
      (error: WeftError) => error.code === 'SOCKET_UNUSABLE'
    )
  })
})
