// Runs suites of test/ with node:test and ends with one line: N passed, N failed, N skipped. Called by scripts/test,
// which prepares what they need.
import { spawn } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { run } from 'node:test'
import { inspect, parseArgs } from 'node:util'

/** Suites that make namespaces run one file after another, each with this much time; the others together. */
const SUITES: Readonly<Record<string, { readonly root: boolean; readonly fileSeconds: number }>> = {
  unit: { root: false, fileSeconds: 300 },
  fuzz: { root: false, fileSeconds: 1_800 },
  lab: { root: true, fileSeconds: 1_800 },
  cni: { root: true, fileSeconds: 600 },
  docker: { root: true, fileSeconds: 600 },
  interop: { root: true, fileSeconds: 900 },
  kube: { root: true, fileSeconds: 1800 },
  vm: { root: true, fileSeconds: 1800 }
}

type Failure = { readonly name: string; readonly why: string }
const total = { passed: 0, failed: 0, skipped: 0 }
const failures: Failure[] = []
const skips: Failure[] = []
const say = (line: string) => process.stdout.write(`${line}\n`)

const { values, positionals } = parseArgs({ allowPositionals: true, options: { name: { type: 'string' } } })
const suites = positionals.filter((word) => word in SUITES)
const files = positionals.filter((word) => !(word in SUITES))
const ALARMS = join(mkdtempSync(join(tmpdir(), 'weft-alarms-')), 'alarms')
process.env.WEFT_LAB_ALARMS = ALARMS
const end = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => end.abort(new Error(signal)))

/** Lint, format, rooms and types: each counts as one test. */
async function checks(): Promise<void> {
  for (const [name, command] of [
    ['biome', ['biome', 'check', '--error-on-warnings', '--colors=off', '.']],
    ['types', ['tsc', '-p', 'tsconfig.json']],
    ['types of the pure rooms', ['tsc', '-p', 'tsconfig.pure.json']],
    ['types of the page', ['tsc', '-p', 'tsconfig.page.json']]
  ] as const) {
    const started = performance.now()
    const { exit, output } = await outputOf(command)
    count(exit === 0 ? 'passed' : 'failed')
    if (exit !== 0) failures.push({ name: command.join(' '), why: output })
    say(`${exit === 0 ? 'ok    ' : 'FAILED'} ${name} ${seconds(started)}`)
  }
}

/** A name that matches no test is a typo, and nothing was tested. */
function somethingMatched(): void {
  if (values.name === undefined || end.signal.aborted || total.passed + total.failed + total.skipped > 0) return
  count('failed')
  failures.push({
    name: `--name=${values.name}`,
    why: `no test of ${[...suites, ...files].join(', ')} has a name that matches`
  })
}

/** Labs remove everything they create; anything left is a failure. */
async function nothingLeft(): Promise<void> {
  const started = performance.now()
  const { exit, output } = await outputOf(['node', 'test/lab/leftovers.ts'])
  count(exit === 0 ? 'passed' : 'failed')
  if (exit !== 0) failures.push({ name: 'namespaces, processes and links that tests left behind', why: output })
  say(`${exit === 0 ? 'ok    ' : 'FAILED'} nothing is left behind ${seconds(started)}`)
}

/** What the lab's daemons said of ways between nodes that were healthy; the files that had any have failed. */
function falseAlarms(): void {
  const lines = readFileSync(ALARMS, { encoding: 'utf8', flag: 'a+' }).split('\n').filter(Boolean)
  rmSync(dirname(ALARMS), { recursive: true })
  const each = lines.map((line) => JSON.parse(line) as { readonly daemons: number; readonly alarms: readonly string[] })
  const sum = each.reduce((so, { daemons, alarms }) => ({ of: so.of + daemons, n: so.n + alarms.length }), {
    of: 0,
    n: 0
  })
  if (sum.of > 0) say(`${sum.n} false alarms of probes, by ${sum.of} daemons`)
}

async function outputOf([program, ...words]: readonly string[]): Promise<{ exit: number; output: string }> {
  const executable = program === 'node' ? process.execPath : `node_modules/.bin/${program}`
  const child = spawn(executable, words, { stdio: ['ignore', 'pipe', 'pipe'], signal: end.signal })
  const parts: Buffer[] = []
  child.stdout.on('data', (part) => parts.push(part))
  child.stderr.on('data', (part) => parts.push(part))
  const { promise, resolve } = Promise.withResolvers<number>()
  child.on('error', (error) => {
    parts.push(Buffer.from(`${error}\n`))
    resolve(1)
  })
  child.on('close', (code) => resolve(code ?? 1))
  return { exit: await promise, output: Buffer.concat(parts).toString() }
}

async function tests(suite: string, paths: readonly string[]): Promise<void> {
  const settings = SUITES[suite]
  if (settings === undefined) throw new Error(`there is no suite ${suite}`)
  const missing = paths.filter((path) => !existsSync(path))
  for (const path of missing) {
    count('failed')
    failures.push({ name: path, why: 'there is no such file' })
  }
  if (paths.length === 0) {
    say(`${suite}: no tests yet`)
    return
  }
  if (settings.root && process.geteuid?.() !== 0) {
    count('skipped')
    skips.push({ name: `suite ${suite}`, why: 'makes network namespaces and needs root' })
    return
  }
  // Files that create namespaces run one by one, each as its own run, so that its output stays together.
  const there = paths.filter((path) => !missing.includes(path))
  for (const batch of settings.root ? there.map((path) => [path]) : [there]) await runFiles(batch, settings.fileSeconds)
}

async function runFiles(paths: readonly string[], fileSeconds: number): Promise<void> {
  if (paths.length === 0) return
  // run()'s timeout covers only the tests: it would wait forever for a file that keeps its process alive after its
  // tests.
  const late = AbortSignal.timeout(fileSeconds * 1000)
  const stream = run({
    files: [...paths],
    concurrency: paths.length > 1 ? availableParallelism() : 1,
    timeout: (fileSeconds - 1) * 1000,
    signal: AbortSignal.any([end.signal, late]),
    ...(values.name !== undefined && { testNamePatterns: values.name })
  })
  const printed = new Map<string, string>()
  const keep = ({ file, message }: { file?: string; message: string }) => {
    const key = resolve(file ?? '')
    printed.set(key, `${printed.get(key) ?? ''}${message}`.slice(-20_000))
  }
  stream.on('test:stderr', keep)
  stream.on('test:stdout', keep)
  // Output that a test shows even if it passes: tables of the test cluster. The runner reports its own counts the same
  // way.
  stream.on('test:diagnostic', ({ message }) => COUNTS.test(message) || say(message))
  const skipped = (name: string, file: string | undefined, reason: string | true) => {
    count('skipped')
    skips.push({ name: `${place(file)}: ${name}`, why: reason === true || reason === '' ? 'no reason given' : reason })
  }
  stream.on('test:pass', ({ name, skip, todo, file, details }) => {
    // A file in which no name matched passes as a test named like itself.
    if (values.name !== undefined && file !== undefined && resolve(name) === resolve(file)) return
    const reason = skip || todo
    // The runner reports no test of a skipped suite, only the suite.
    if (reason) skipped(name, file, reason)
    else if (details.type !== 'suite') count('passed')
  })
  stream.on('test:fail', ({ name, file, details, todo }) => {
    if (details.type === 'suite') return
    if (todo) return skipped(name, file, todo)
    // A parent fails with its subtests, which are reported already.
    if ((details.error as { failureType?: string } | undefined)?.failureType === 'subtestsFailed') return
    count('failed')
    failures.push({
      name: `${place(file)}: ${name}`,
      why: `${causeOf(details.error)}\n${printed.get(resolve(file ?? name)) ?? ''}`
    })
  })
  stream.on('test:summary', ({ file, success, duration_ms: took, counts }) => {
    if (success && values.name !== undefined && counts.tests === 0) return
    if (file !== undefined) say(`${success ? 'ok    ' : 'FAILED'} ${place(file)} ${(took / 1000).toFixed(1)} s`)
  })
  // The stream flows only when somebody reads it.
  for await (const _ of stream);
}

const COUNTS = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) [\d.]+$/
const count = (outcome: keyof typeof total) => total[outcome]++
const place = (file: string | undefined): string => (file === undefined ? '?' : relative(process.cwd(), file))
const seconds = (started: number): string => `${((performance.now() - started) / 1000).toFixed(1)} s`

/** node:test wraps what was thrown. */
function causeOf(error: unknown): string {
  const { exitCode, signal } = error as { exitCode?: number; signal?: string }
  if (exitCode !== undefined) return `the file ended with ${signal ?? `exit status ${exitCode}`}`
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error
  if (!(cause instanceof Error)) return String(cause)
  return inspect(cause, { depth: 4 })
}

function report(): void {
  for (const { name, why } of failures) say(`\nFAILED ${name}\n${why.trimEnd().replaceAll(/^/gm, '  ')}`)
  if (skips.length > 0) say('')
  for (const { name, why } of skips) say(`skipped ${name}: ${why}`)
  if (end.signal.aborted) say(`\nended early by ${end.signal.reason.message}`)
  say(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
  process.exitCode = total.failed > 0 || end.signal.aborted ? 1 : 0
}

// By itself the fuzz suite makes half a million cases; among others, what half a minute allows.
if (suites.length > 1) {
  // Among other suites a short slice, always the same one: new cases are for `scripts/test fuzz`, where somebody looks
  // at what they find.
  process.env.WEFT_FUZZ_CASES ??= '40000'
  process.env.WEFT_FUZZ_SEED ??= '20261121'
}
for (const suite of suites) {
  if (suite === 'unit' && files.length === 0 && values.name === undefined) await checks()
  await tests(suite, files.length > 0 ? files : globSync(`test/${suite}/**/*.test.ts`).sort())
}
somethingMatched()
if (suites.some((suite) => SUITES[suite]?.root) && process.geteuid?.() === 0) await nothingLeft()
falseAlarms()
report()
