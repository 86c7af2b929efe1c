// weftd: the world put together, read from top to bottom. One AbortController ends everything; pods' traffic does not need any of it to run.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { pino } from 'pino'
import manifest from '../package.json' with { type: 'json' }
import { reasonOf, WeftError } from './base/error.ts'
import type { Log } from './base/log.ts'
import type { Options } from './cli/flag-table.ts'
import { type ParsedOptions, printHelp, printVersion } from './cli/parse-options.ts'
import { parseCommand, printCleanHelp, printInstallHelp } from './cli/subcommands.ts'
import { exitOnClosedPipe } from './ctl/closed-reader.ts'
import { cleanNode, runDaemon } from './daemon.ts'
import { logCondition, reportUnknownVariables } from './health/condition-log.ts'
import { Health } from './health/health.ts'
import { createMetrics, observeHealth, observeProcess } from './health/metrics.ts'
import { installedText, installPlugins } from './lifecycle/install.ts'

type Work = {
  readonly run: typeof runDaemon
  /** What the log begins with, and what it says when a signal ends it. */
  readonly begins: string
  readonly stops: string
  readonly told: typeof logCondition
}

const RUN: Work = {
  run: runDaemon,
  begins: 'weftd starts',
  stops: 'stopping; routes and pods stay as they are',
  told: logCondition
}
const CLEAN: Work = {
  run: cleanNode,
  begins: 'weftd clean: taking what is of Weft off this node',
  stops: 'stopping; what is not taken away yet stays, and weftd clean goes on where it stopped',
  // That nothing is set up is what it wants.
  told: (log) => {
    const tell = logCondition(log)
    return (condition, active) => condition.code === 'STARTING' || tell(condition, active)
  }
}

exitOnClosedPipe(process.stdout, process.stderr)
const argv = process.argv.slice(2)
const width = Math.min(process.stdout.columns ?? 100, 120)
const command = parseCommand(argv, process.env)
switch (command.kind) {
  case 'install help':
    process.stdout.write(printInstallHelp(width))
    break
  case 'clean help':
    process.stdout.write(printCleanHelp(width))
    break
  case 'install':
    install(command.flags)
    break
  case 'wrong':
    refuse(command.errors)
    break
  case 'daemon':
  case 'clean':
    await follow(command.parsed, command.kind === 'clean' ? CLEAN : RUN)
}

async function follow(parsed: ParsedOptions, work: Work): Promise<void> {
  switch (parsed.kind) {
    case 'page':
      process.exitCode = await printPage()
      break
    case 'help':
      process.stdout.write(printHelp(width))
      break
    case 'version':
      process.stdout.write(printVersion('weftd', manifest.version))
      break
    case 'wrong':
      refuse(parsed.errors)
      break
    case 'run':
      await start(parsed.options, parsed.strangers, work)
  }
}

/** Loaded when it is asked for: a daemon has no use for weftctl. */
async function printPage(): Promise<number> {
  const { run } = await import('./ctl/run.ts')
  return run(argv, {
    env: {},
    isDaemon: true,
    version: manifest.version,
    out: (text) => process.stdout.write(text),
    complain: (text) => process.stderr.write(text)
  })
}

function refuse(errors: readonly WeftError[]): void {
  for (const { message, cure } of errors) process.stderr.write(`weftd: ${message}\ncure: ${cure}\n`)
  process.exitCode = 2
}

function install(flags: {
  readonly cniBinDir: string
  readonly cniSourceDir: string
  readonly replaceForeign: boolean
}) {
  const { cniSourceDir: from, cniBinDir: to, replaceForeign } = flags
  for (const result of installPlugins({ from, to, replaceForeign })) {
    if (result.kind === 'failed') process.exitCode = 1
    const stream = result.kind === 'failed' ? process.stderr : process.stdout
    stream.write(`weftd: ${installedText(result)}\n`)
  }
}

/** For ps(1), pgrep(1), and a second weftd that names the first: Node calls its main thread otherwise. Not process.title, which would overwrite the flags. */
function nameProcess(): void {
  try {
    writeFileSync('/proc/self/comm', 'weftd')
  } catch {
    // A name is not worth a failure.
  }
}

async function start(options: Options, strangers: readonly string[], work: Work): Promise<void> {
  // libuv makes its pool at the first use. Calls that wait for the kernel may hold five threads (base/serial-queue.ts); files and name look-ups need some too.
  process.env.UV_THREADPOOL_SIZE ??= '8'
  nameProcess()
  const log: Log = pino(
    { level: options.v > 0 ? 'debug' : 'info', base: null },
    pino.destination({ fd: 2, sync: true })
  )
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, work.stops)
      stop.abort()
    })
  }
  const fail = (error: unknown, message: string) => {
    // What the user can mend is one line with the cure; a fault of ours needs its stack.
    const fields = error instanceof WeftError ? { code: error.code, cure: error.cure } : { err: error }
    log.error(fields, `${message}: ${reasonOf(error)}`)
    process.exit(1)
  }
  process.on('unhandledRejection', (error) => fail(error, 'a promise without an owner failed'))
  process.on('uncaughtException', (error) => fail(error, 'weftd failed'))

  log.info({ version: manifest.version, runtime: process.version, pid: process.pid }, work.begins)
  const health = new Health(Date.now, work.told(log))
  reportUnknownVariables(health, strangers)
  const metrics = createMetrics()
  observeProcess(metrics, manifest.version)
  observeHealth(metrics, health)
  const nodeName = options.nodeName ?? process.env.NODE_NAME ?? hostname()
  try {
    await work.run(
      {
        options,
        log,
        health,
        metrics,
        version: manifest.version,
        nodeName,
        identity: `${machineId()} ${nodeName}`,
        ipv6: existsSync('/proc/sys/net/ipv6'),
        environment: process.env
      },
      stop.signal
    )
  } catch (error) {
    if (!stop.signal.aborted) fail(error, 'weftd can not go on')
  }
  log.info({}, 'stopped')
  // Sockets of addons and libraries are the kernel's business now.
  process.exit()
}

/** The installation's identity (machine-id(5)); without one, the node's name alone has to tell nodes apart. */
function machineId(): string {
  try {
    return readFileSync('/etc/machine-id', 'utf8').trim()
  } catch {
    return ''
  }
}
