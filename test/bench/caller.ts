// Calls CNI executables from inside a host and times each from its start to its end, as a runtime would see it.
// A process of its own, entered by nsenter once: posix_spawn and wait4 cost tens of microseconds, where Node's own
// spawn and nsenter cost a millisecond each. Reads one JSON request a line, answers one JSON line each.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import koffi from 'koffi'

/**
 * One executable of a chain; of a list's later steps, `prevResult` is filled in from the step before when `chain` is
 * set.
 */
export interface CallerStep {
  readonly path: string
  readonly config: { readonly [key: string]: unknown }
}

export interface CallerJob {
  readonly steps: readonly CallerStep[]
  readonly env: Readonly<Record<string, string>>
  readonly chain: boolean
}

export interface CallerAnswer {
  /** For each job the sum of its executables' times, from spawn to end, in microseconds. */
  readonly microseconds: readonly number[]
  /** From the first spawn to the last end. */
  readonly wallMicroseconds: number
  /** What executables that failed printed. */
  readonly failures: readonly string[]
}

const libc = koffi.load('libc.so.6')
koffi.alias('pid_t', 'int')
const spawn = libc.func(
  'int posix_spawn(_Out_ int *pid, const char *path, const void *actions, const void *attr, const char **argv, const char **envp)'
)
const actionsInit = libc.func('int posix_spawn_file_actions_init(void *actions)')
const actionsDestroy = libc.func('int posix_spawn_file_actions_destroy(void *actions)')
const addOpen = libc.func(
  'int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags, uint mode)'
)
const waitpid = libc.func('int waitpid(int pid, _Out_ int *status, int options)')

// Source: fcntl.h of Linux on amd64 and arm64.
const O_RDONLY = 0
const O_WRONLY_CREAT_TRUNC = 0o1 | 0o100 | 0o1000
/** Larger than posix_spawn_file_actions_t of glibc (80 bytes). */
const actionsSize = 256

const directory = '/run/bench'
mkdirSync(directory, { recursive: true })

interface Running {
  readonly job: number
  readonly step: number
  readonly begun: bigint
  readonly files: string
}

function start(
  job: CallerJob,
  index: number,
  step: number,
  previous: unknown
): { readonly pid: number; readonly running: Running } {
  const { path, config } = job.steps[step] as CallerStep
  const files = `${directory}/${index}-${step}`
  writeFileSync(
    `${files}.in`,
    JSON.stringify(job.chain && previous !== undefined ? { ...config, prevResult: previous } : config)
  )
  const actions = Buffer.alloc(actionsSize)
  actionsInit(actions)
  addOpen(actions, 0, `${files}.in`, O_RDONLY, 0)
  addOpen(actions, 1, `${files}.out`, O_WRONLY_CREAT_TRUNC, 0o600)
  addOpen(actions, 2, `${files}.err`, O_WRONLY_CREAT_TRUNC, 0o600)
  const environment = Object.entries({ PATH: process.env.PATH ?? '', WEFT_LAB: process.env.WEFT_LAB ?? '', ...job.env })
  const pid: [number] = [0]
  const begun = process.hrtime.bigint()
  const error = spawn(
    pid,
    path,
    actions,
    null,
    [path, null],
    [...environment.map(([name, value]) => `${name}=${value}`), null]
  )
  actionsDestroy(actions)
  if (error !== 0) throw new Error(`posix_spawn of ${path} failed with errno ${error}`)
  return { pid: pid[0], running: { job: index, step, begun, files } }
}

/** All jobs at once; the steps of each one after the other. */
function callAll(jobs: readonly CallerJob[]): CallerAnswer {
  const microseconds: number[] = jobs.map(() => 0)
  const failures: string[] = []
  const running = new Map<number, Running>()
  const wall = process.hrtime.bigint()
  let last = wall
  const launch = (job: CallerJob, index: number, step: number, previous: unknown) => {
    const { pid, running: entry } = start(job, index, step, previous)
    running.set(pid, entry)
  }
  jobs.forEach((job, index) => {
    launch(job, index, 0, undefined)
  })
  while (running.size > 0) {
    const status: [number] = [0]
    // Any child: this process starts no others.
    const pid = waitpid(-1, status, 0)
    last = process.hrtime.bigint()
    const ended = running.get(pid)
    if (!ended) throw new Error(`waitpid answered ${pid}, which is no call of ours`)
    running.delete(pid)
    microseconds[ended.job] = (microseconds[ended.job] ?? 0) + Number((last - ended.begun) / 1000n)
    const job = jobs[ended.job] as CallerJob
    const said =
      status[0] === 0 ? '' : readFileSync(`${ended.files}.out`, 'utf8') + readFileSync(`${ended.files}.err`, 'utf8')
    if (status[0] !== 0)
      failures.push(`${job.steps[ended.step]?.path} ${JSON.stringify(job.env)}: status ${status[0]}: ${said}`)
    else if (ended.step + 1 < job.steps.length)
      launch(job, ended.job, ended.step + 1, job.chain ? resultIn(ended.files) : undefined)
  }
  return { microseconds, wallMicroseconds: Number((last - wall) / 1000n), failures }
}

function resultIn(files: string): unknown {
  const text = readFileSync(`${files}.out`, 'utf8')
  return text.trim() === '' ? undefined : JSON.parse(text)
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(callAll(JSON.parse(line) as CallerJob[]))}\n`)
}
