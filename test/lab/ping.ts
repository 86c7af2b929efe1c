// Ping with an account of each sequence number: which answers came, which are missing, how long the longest silence
// was.
import { createInterface } from 'node:readline'
import type { Spawn } from './pid-namespace.ts'
import { type Finished, type RunOptions, until } from './run.ts'

/** Where ping runs: any place of the lab. */
export interface Pinger {
  readonly name: string
  readonly spawnChild: Spawn
  exec(command: string, args: readonly string[], options: RunOptions): Promise<Finished>
}

export interface PingCount {
  readonly sent: number
  readonly received: number
  /** Mean round trip in milliseconds; undefined without an answer. */
  readonly rttMs: number | undefined
  /** What ping printed, for messages. */
  readonly text: string
}

export interface PingDuring<T> {
  readonly sent: number
  readonly received: number
  /** Sequence numbers (from 1) that were sent and never answered. */
  readonly lost: readonly number[]
  readonly duplicates: number
  /** Longest run of lost packets, in milliseconds of the sending interval. */
  readonly longestGapMs: number
  /** What the function returned. */
  readonly value: T
}

const everyMs = 5

/** One line of ping: the sequence number of an answer, or undefined for any other line. */
export function answerOf(
  line: string
): { readonly sequence: number; readonly duplicate: boolean; readonly rttMs: number | undefined } | undefined {
  const match = /^\d+ bytes from .*icmp_seq=(\d+)\b(?:.*\btime=([\d.]+) ms)?/.exec(line)
  if (!match) return undefined
  return {
    sequence: Number(match[1]),
    duplicate: line.includes('(DUP!)'),
    rttMs: match[2] ? Number(match[2]) : undefined
  }
}

/** How many ping says it sent, from its closing lines. */
export function sentOf(text: string): number | undefined {
  const match = /^(\d+) packets transmitted/m.exec(text)
  return match ? Number(match[1]) : undefined
}

/**
 * The account of one run. `sent` counts what ping sent; the last packet is left out when it has no answer, since ping
 * was stopped just after sending it.
 */
export function account(text: string): Omit<PingDuring<unknown>, 'value'> {
  const answered = new Set<number>()
  let duplicates = 0
  for (const line of text.split('\n')) {
    const answer = answerOf(line)
    if (!answer) continue
    if (answer.duplicate || answered.has(answer.sequence)) duplicates++
    answered.add(answer.sequence)
  }
  const transmitted = sentOf(text)
  if (transmitted === undefined) throw new Error(`ping did not say how much it sent: ${text.slice(-300)}`)
  const sent = answered.has(transmitted) || transmitted === 0 ? transmitted : transmitted - 1
  const lost: number[] = []
  let gap = 0
  let longest = 0
  for (let sequence = 1; sequence <= sent; sequence++) {
    gap = answered.has(sequence) ? 0 : gap + 1
    longest = Math.max(longest, gap)
    if (gap > 0) lost.push(sequence)
  }
  return { sent, received: sent - lost.length, lost, duplicates, longestGapMs: longest * everyMs }
}

/** `count` pings (1 when absent), 50 ms apart, each answer awaited for one second. */
export async function pingCount(
  from: Pinger,
  address: string,
  {
    count = 1,
    size,
    mtuProbe = false
  }: { readonly count?: number; readonly size?: number; readonly mtuProbe?: boolean }
): Promise<PingCount> {
  const args = ['-n', '-c', String(count), '-i', '0.05', '-W', '1']
  if (size !== undefined) args.push('-s', String(size))
  if (mtuProbe) args.push('-M', 'do')
  const { stdout, stderr } = await from.exec('ping', [...args, address], {
    check: false,
    timeoutMs: 30_000 + count * 1_100
  })
  const text = `${stdout}${stderr}`
  const answers = new Map<number, number | undefined>()
  for (const line of stdout.split('\n')) {
    const answer = answerOf(line)
    if (answer && !answer.duplicate) answers.set(answer.sequence, answer.rttMs)
  }
  const times = [...answers.values()].filter((time) => time !== undefined)
  const rttMs = times.length > 0 ? times.reduce((sum, time) => sum + time, 0) / times.length : undefined
  // "Network is unreachable" makes ping give up before it counts.
  return { sent: sentOf(stdout) ?? count, received: answers.size, rttMs, text }
}

/**
 * Pings every 5 ms while `during` runs; begins it after the first answer, and ends when answers came for a while after
 * it.
 */
export async function pingWhile<T>(from: Pinger, address: string, during: () => Promise<T>): Promise<PingDuring<T>> {
  // Before all others: its socket holds the answers of half a second, and one that finds no room there would count as
  // lost on the way.
  const args = ['-n', '-20', 'ping', '-n', '-i', String(everyMs / 1000), address]
  await using ping = {
    process: from.spawnChild('nice', args, { stdio: ['ignore', 'pipe', 'pipe'] }),
    async [Symbol.asyncDispose]() {
      this.process.kill('SIGKILL')
    }
  }
  const child = ping.process
  let text = ''
  let highest = 0
  const ended = new Promise((resolve) => child.on('close', resolve))
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      text += `${line}\n`
      highest = Math.max(highest, answerOf(line)?.sequence ?? 0)
    })
  }
  await until(() => highest > 0, { what: `the first answer of ${address} to ${from.name} (ping said: ${text})` })
  const value = await during()
  const enough = highest + 20
  // Whoever never answers again is reported as lost packets, not as an error.
  await until(() => highest >= enough, { what: 'more answers', deadlineMs: 5_000 }).catch(() => {})
  child.kill('SIGINT')
  await ended
  return { ...account(text), value }
}
