// The head of a benchmark's report: which machine, which kernel, when, and what was compared with what.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { arch, cpus, release, totalmem } from 'node:os'
import { peersDirectory } from '../lab/peers.ts'
import { type Row, table } from './statistics.ts'

function commit(): string {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore']
    }).trim()
  } catch {
    return 'not in git'
  }
}

const peers = (): readonly string[] =>
  readFileSync(`${peersDirectory()}/versions`, 'utf8')
    .split('\n')
    .filter((line) => /^\S*[/]|^debian/.test(line))

/** One progress line on standard error. */
export function progress(text: string): void {
  process.stderr.write(`bench: ${text}\n`)
}

/** Prints the report on standard output. */
export function report(title: string, rows: readonly Row[], notes: readonly string[]): void {
  const processors = cpus()
  const machine = `${processors.length} × ${processors[0]?.model ?? arch()}, ${Math.round(totalmem() / 2 ** 30)} GiB`
  const lines = [
    `## ${title}`,
    '',
    `${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC · ${machine} · Linux ${release()} · Node ${process.versions.node} · weft ${commit()}`,
    '',
    'Interleaved rounds in one run; median with 10th to 90th percentile in brackets. Only the ratios travel to other machines.',
    '',
    table(rows),
    '',
    ...notes.map((note) => `- ${note}`),
    ...(rows.some(({ peer }) => peer.length > 0) ? [`- peers: ${peers().join('; ')}`] : [])
  ]
  process.stdout.write(`${lines.join('\n')}\n`)
}
