// The primitives of plugins/host.d.ts on Node, so that plugins/main.ts runs in unit tests as it runs in the executable;
// standard streams are texts.
import { spawn } from 'node:child_process'
import { readFile, readlink, stat } from 'node:fs/promises'
import { createConnection } from 'node:net'
import type { Answer, Ended, Host, Input } from '../../../plugins/host.d.ts'

export type Deps = {
  readonly program?: string
  readonly environment?: Readonly<Record<string, string>>
  /** Absent: reading standard input fails. */
  readonly input?: string
}

/** A host that keeps what was written, and whether standard input was read. */
export class HostOnNode implements Host {
  readonly program: string
  readonly environment: readonly string[]
  output = ''
  error = ''
  hasReadInput = false
  readonly #input: string | undefined

  constructor(deps: Deps) {
    this.program = deps.program ?? '/opt/cni/bin/weft'
    this.environment = Object.entries(deps.environment ?? {}).map(([name, value]) => `${name}=${value}`)
    this.#input = deps.input
  }

  readInput(limitBytes: number): Input {
    this.hasReadInput = true
    if (this.#input === undefined) return { kind: 'failed', reason: 'Bad file descriptor' }
    if (Buffer.byteLength(this.#input) > limitBytes)
      return { kind: 'failed', reason: `it is longer than ${limitBytes} bytes` }
    return { kind: 'text', text: this.#input }
  }

  write(stream: 'output' | 'error', text: string): void {
    this[stream] += text
  }

  async isFile(path: string): Promise<boolean> {
    return (await stat(path).catch(() => undefined))?.isFile() ?? false
  }

  readLink(path: string): Promise<string> {
    return readlink(path).catch(() => '')
  }

  async readText(path: string): Promise<Input> {
    return readFile(path, 'utf8').then(
      (text): Input => ({ kind: 'text', text }),
      (error): Input => ({ kind: 'failed', reason: String(error) })
    )
  }

  async identity(path: string): Promise<string> {
    const found = await stat(path).catch(() => undefined)
    return found === undefined ? '' : `${found.dev}:${found.ino}`
  }

  request(socketPath: string, line: string, deadlineMilliseconds: number): Promise<Answer> {
    return new Promise((resolve) => {
      const socket = createConnection(socketPath)
      const finish = (answer: Answer) => {
        clearTimeout(timer)
        socket.destroy()
        resolve(answer)
      }
      const timer = setTimeout(() => finish({ kind: 'deadline', reason: 'no answer in time' }), deadlineMilliseconds)
      let received = ''
      socket.setEncoding('utf8')
      socket.on('connect', () => socket.write(`${line}\n`))
      socket.on('data', (piece: string) => {
        received += piece
        const end = received.indexOf('\n')
        if (end >= 0) finish({ kind: 'line', line: received.slice(0, end) })
      })
      socket.on('end', () => finish({ kind: 'closed', reason: 'the connection ended before a whole line had come' }))
      socket.on('error', (error: NodeJS.ErrnoException) =>
        finish({ kind: kinds[error.code ?? ''] ?? 'failed', reason: error.message })
      )
    })
  }

  spawn(
    program: string,
    args: readonly string[],
    changes: Readonly<Record<string, string>>,
    input: string,
    deadlineMilliseconds: number
  ): Promise<Ended> {
    const inherited = Object.fromEntries(this.environment.map((each) => each.split(/=(.*)/s).slice(0, 2)))
    return new Promise((resolve) => {
      const child = spawn(program, args, { env: { ...inherited, ...changes }, detached: true, stdio: 'pipe' })
      const printed = { stdout: '', stderr: '' }
      let isLate = false
      const timer = setTimeout(() => {
        isLate = true
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      }, deadlineMilliseconds)
      child.stdout.on('data', (piece: Buffer) => (printed.stdout += piece.toString()))
      child.stderr.on('data', (piece: Buffer) => (printed.stderr += piece.toString()))
      child.stdin.on('error', () => {}) // a program need not read its input
      child.stdin.end(input)
      child.on('error', (error) => {
        clearTimeout(timer)
        resolve({ kind: 'failed', reason: error.message })
      })
      child.on('close', (status, signal) => {
        clearTimeout(timer)
        if (isLate) resolve({ kind: 'deadline', status: 0, ...printed })
        else if (signal === null) resolve({ kind: 'exited', status: status ?? 0, ...printed })
        else resolve({ kind: 'killed', status: signal === 'SIGKILL' ? 9 : 15, ...printed })
      })
    })
  }
}

const kinds: Readonly<Record<string, Exclude<Answer['kind'], 'line'>>> = {
  ENOENT: 'missing',
  ENOTDIR: 'missing',
  ECONNREFUSED: 'refused',
  EACCES: 'denied',
  EPERM: 'denied',
  EPIPE: 'closed',
  ECONNRESET: 'closed'
}
