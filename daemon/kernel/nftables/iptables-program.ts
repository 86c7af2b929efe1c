// Runs iptables' own programs: without a shell, never for a pod, with bounds in time and output.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Family } from '../../../ipam/address.ts'
import { reasonOf, WeftError } from '../../base/error.ts'
import type { IptablesTool } from '../../state/object.ts'

/** Seconds that iptables waits for its lock; milliseconds for the whole call. */
export const LOCK_SECONDS = '5'
const CALL_MS = 10_000
/** Characters of a program's error output that are kept. */
const MOST_COMPLAINT = 2_000
const environment = { LC_ALL: 'C', PATH: '/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin' }
const program: Readonly<Record<Family, string>> = { 4: 'iptables', 6: 'ip6tables' }

export type Ran = { readonly stdout: string; readonly stderr: string; readonly failed: Error | undefined }

/** Never rejects. */
export function run(file: string, args: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(file, args, { timeout: CALL_MS, env: environment }, (failed, stdout, stderr) => {
      resolve({ stdout, stderr, failed: failed ?? undefined })
    })
  })
}

/** The lines that a program prints, read with `read` while it prints them. Errors: IPTABLES_FAILED. */
export async function readLines<T>(
  file: string,
  args: readonly string[],
  read: (lines: AsyncIterable<string>) => Promise<T>
): Promise<T> {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: CALL_MS, env: environment })
  const ended = end(child)
  const result = await read(createInterface({ input: child.stdout }))
  await succeeded([file, ...args].join(' '), ended)
  return result
}

/** Runs a program with this input. Errors: IPTABLES_FAILED. */
export async function feed(file: string, args: readonly string[], input: string): Promise<void> {
  const child = spawn(file, args, { stdio: ['pipe', 'ignore', 'pipe'], timeout: CALL_MS, env: environment })
  const ended = end(child)
  // A program that ends early does not read it; its end says why.
  child.stdin.on('error', () => undefined).end(input)
  await succeeded([file, ...args].join(' '), ended)
}

type End = { readonly stderr: string; readonly reason: Error | undefined }

function end(child: ChildProcess): Promise<End> {
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(0, MOST_COMPLAINT)
  })
  const name = child.spawnfile
  return once(child, 'close').then(
    ([code, signal]) => ({
      stderr,
      reason: code === 0 ? undefined : new Error(`${name} ended with ${code ?? signal}`)
    }),
    (error: unknown) => ({ stderr, reason: error instanceof Error ? error : new Error(String(error)) })
  )
}

async function succeeded(command: string, ended: Promise<End>): Promise<void> {
  const { stderr, reason } = await ended
  if (reason !== undefined) throw iptablesFailed(command, { stderr, failed: reason })
}

export function iptablesFailed(command: string, { stderr, failed }: Pick<Ran, 'stderr' | 'failed'>): WeftError {
  const output = stderr.trim() || reasonOf(failed)
  return new WeftError(
    'IPTABLES_FAILED',
    `${command} failed: ${output}`,
    'run the quoted command as root; if its error names a kernel module, load that',
    { cause: failed }
  )
}

/** Where the programs of each kind are; found once. */
export class IptablesPrograms {
  readonly #found = new Map<string, string>()

  /** `iptables-legacy`, or `iptables` where that is the legacy one; `undefined` where neither is installed. */
  async find(tool: IptablesTool, family: Family): Promise<string | undefined> {
    const key = `${tool} ${family}`
    const known = this.#found.get(key)
    if (known !== undefined) return known
    const isNft = tool === 'iptables-nft'
    for (const name of [`${program[family]}${isNft ? '-nft' : '-legacy'}`, program[family]]) {
      const { stdout, failed } = await run(name, ['--version'])
      // Before 1.8 there was only the legacy variant, and --version did not name it.
      if (failed !== undefined || stdout.includes('nf_tables') !== isNft) continue
      this.#found.set(key, name)
      return name
    }
    return undefined
  }
}

/** `why`: what can't be done without it. */
export const iptablesMissing = (tool: IptablesTool, family: Family, why: string): WeftError =>
  new WeftError(
    'IPTABLES_MISSING',
    `neither ${program[family]}${tool === 'iptables-nft' ? '-nft' : '-legacy'} nor ${program[family]} of that kind is installed: ${why}`,
    `install the package iptables (Debian, Ubuntu) or ${tool} (Alpine, Fedora)`
  )
