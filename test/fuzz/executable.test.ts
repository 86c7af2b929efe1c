// The built executable with hostile environments, standard input and a daemon that answers anything: always one answer,
// in time, and never a crash.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { ProtocolError, parseReply, parseRequest } from '../../plugins/protocol.ts'
import { checkError } from './answer.ts'
import { hostileCall, type Spoken } from './call.ts'
import { campaignOf, casesOf, randomOf } from './campaign.ts'
import type { Random } from './random.ts'
import { hostileReply } from './reply.ts'
import { ODD_TEXTS } from './tree.ts'

const weft = join(import.meta.dirname, '../../dist/cni/weft')
const skip = existsSync(weft) ? false : 'dist/cni/weft is not built: run scripts/build-plugins'
/** What the executable itself waits for the daemon, and what a hang is. */
const DEADLINE_MS = 2_000
const HANG_MS = 30_000

type Ended = { readonly exit: number | null; readonly signal: string | null; readonly stdout: string }

function run(
  { env, stdin }: Spoken,
  more: { readonly pieces?: boolean; readonly command?: readonly string[] } = {}
): Promise<Ended> {
  const { promise, resolve, reject } = Promise.withResolvers<Ended>()
  const [file = weft, ...args] = more.command ?? []
  const child = spawn(file, args, { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const timer = setTimeout(() => {
    child.kill('SIGKILL')
    reject(new Error(`no end after ${HANG_MS} ms`))
  }, HANG_MS)
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.resume()
  child.stdin.on('error', () => undefined)
  if (more.pieces === true) for (const piece of stdin.match(/.{1,7}/gsu) ?? []) child.stdin.write(piece)
  child.stdin.end(more.pieces === true ? '' : stdin)
  child.on('error', reject)
  child.on('close', (exit, signal) => {
    clearTimeout(timer)
    resolve({ exit, signal, stdout })
  })
  return promise
}

/** A daemon out of its mind. What it answered to each call is known by the call's container id. */
class Liar implements AsyncDisposable {
  readonly path: string
  readonly answers = new Map<string, string>()
  readonly #server: Server
  readonly #folder: string
  readonly #open = new Set<Socket>()
  #count = 0

  private constructor(folder: string) {
    this.#folder = folder
    this.path = join(folder, 's')
    this.#server = createServer((socket) => {
      this.#open.add(socket)
      socket.on('close', () => this.#open.delete(socket)).on('error', () => undefined)
      this.#answer(socket, randomOf('liar', this.#count++))
    })
  }

  static async start(): Promise<Liar> {
    const liar = new Liar(await mkdtemp(join(tmpdir(), 'weft-fuzz-')))
    await new Promise<void>((resolve, reject) => liar.#server.on('error', reject).listen(liar.path, resolve))
    return liar
  }

  #answer(socket: Socket, random: Random): void {
    const manner = random.below(12)
    if (manner === 0) return void socket.destroy()
    let received = ''
    socket.setEncoding('utf8').on('data', (text: string) => {
      received += text
      if (manner === 1) return void socket.destroy()
      const end = received.indexOf('\n')
      if (end < 0) return
      const request = parseRequest(received.slice(0, end))
      assert.ok('plugin' in request, 'no plugin asks questions of weftctl')
      if (manner === 2) return void socket.end(hostileReply(random).slice(0, 20))
      if (manner === 3) return void socket.end(random.bytes(random.below(4_000)))
      const line = random.chance(0.02) ? 'x'.repeat(3_000_000) : hostileReply(random)
      this.answers.set(request.env.CNI_CONTAINERID ?? '', line)
      socket.end(`${line}\n${random.chance(0.2) ? 'more than a line' : ''}`)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
    await rm(this.#folder, { recursive: true })
  }
}

/**
 * What execve takes: no zero byte, in a name no "=". A variable of the call that is meant to reach the daemon keeps its
 * name.
 */
function passable(env: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([name, value]) =>
      name.includes('=') || `${name}${value}`.includes('\0') ? [] : [[name, value]]
    )
  )
}

function checkEnd(
  { exit, signal, stdout }: Ended,
  env: Readonly<Record<string, string>>,
  lie: string | undefined
): void {
  assert.deepEqual([typeof exit, signal], ['number', null], stdout.slice(0, 300))
  const said = lie === undefined ? undefined : finishedIn(lie)
  // Lone surrogates can't be written; they come out as U+FFFD.
  if (said !== undefined) assert.deepEqual([exit, stdout], [said.exit, Buffer.from(said.stdout).toString()])
  else if (exit === 0) {
    // Without a command it tells its version on standard error; VERSION needs nothing else.
    if (env.CNI_COMMAND) assert.equal(JSON.parse(stdout).supportedVersions.length, 7)
    else assert.equal(stdout, '')
  } else checkError(stdout, env.CNI_COMMAND)
}

function finishedIn(line: string) {
  try {
    const reply = parseReply(line)
    return 'run' in reply ? undefined : reply
  } catch (error) {
    if (error instanceof ProtocolError) return undefined
    throw error
  }
}

describe('the executable', { skip }, () => {
  test('answers every call in the due form, whatever is in it and whatever the daemon says', async () => {
    await using liar = await Liar.start()
    const absent = join(tmpdir(), 'weft-fuzz-absent.sock')
    await campaignOf('executable', casesOf(0.012, 40), 4, async (random, index) => {
      const { env, stdin } = hostileCall(random, 'weft')
      // The id says which call a lie was told to.
      const id = `fuzz-${index}`
      const socket = random.chance(0.9) ? liar.path : absent
      const full = passable({
        ...env,
        ...(env.CNI_CONTAINERID && random.chance(0.95) && { CNI_CONTAINERID: id }),
        WEFTD_SOCKET: socket,
        WEFTD_DEADLINE_MS: random.chance(0.95) ? String(DEADLINE_MS) : random.pick(ODD_TEXTS).replaceAll('\0', '')
      })
      const ended = await run({ env: full, stdin }, { pieces: random.chance(0.05) })
      const lie = socket === liar.path && full.CNI_CONTAINERID === id ? liar.answers.get(id) : undefined
      if (full.CNI_CONTAINERID === id || full.CNI_COMMAND === undefined) checkEnd(ended, full, lie)
      else assert.deepEqual([typeof ended.exit, ended.signal], ['number', null])
    })
  })

  test('takes an environment that is no text', async () => {
    await campaignOf('bytes in the environment', casesOf(0.0002, 8), 2, async (random) => {
      const octets = [...random.bytes(6)].map((octet) => `\\${(octet || 1).toString(8).padStart(3, '0')}`).join('')
      const name = random.pick(['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_NETNS', 'CNI_ARGS', 'CNI_PATH', 'TRACEPARENT'])
      const script = `exec env "${name}=$(printf '${octets}x')" ${weft}`
      const env = {
        CNI_COMMAND: 'ADD',
        CNI_CONTAINERID: 'a',
        CNI_NETNS: '/x',
        CNI_IFNAME: 'eth0',
        WEFTD_SOCKET: '/nowhere/s',
        PATH: '/usr/bin:/bin'
      }
      const { exit, stdout } = await run({ env, stdin: '{"name":"n"}' }, { command: ['/bin/sh', '-c', script] })
      assert.equal(exit, 1)
      checkError(stdout, 'ADD')
    })
  })
})
