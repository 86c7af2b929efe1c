// The executable weftd: parses the command line, sets up logging and signals, runs the daemon or a subcommand. Pods'
// traffic does not depend on it.
import { existsSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { pino } from 'pino'
import { contentOf } from '../ipam/files.ts'
import manifest from '../package.json' with { type: 'json' }
import { reasonOf, WeftError } from './base/error.ts'
import type { Log } from './base/log.ts'
import { printable, printableJson } from './base/printable.ts'
import { writtenAs } from './cli/flag-parser.ts'
import { type ParsedOptions, printHelp, printVersion } from './cli/parse-options.ts'
import { parseCommand, printCleanHelp, printInstallHelp, printUdpProxyHelp } from './cli/subcommands.ts'
import { exitOnClosedPipe } from './ctl/closed-reader.ts'
import type { DaemonDeps } from './daemon.ts'
import { logCondition, reportUnknownVariables } from './health/condition-log.ts'
import { Health } from './health/health.ts'
import { createMetrics, observeHealth, observeProcess } from './health/metrics.ts'
import { installedText, installPlugins } from './lifecycle/install.ts'
import { interfacePatterns } from './node/interface-patterns.ts'
import { exitAtOnce } from './os/exit.ts'

type Run = Extract<ParsedOptions, { readonly kind: 'run' }>

type Work = {
  readonly run: (deps: DaemonDeps, signal: AbortSignal) => Promise<void>
  /** The first line of the log, and the line when a signal ends the process. */
  readonly begins: string
  readonly stops: string
  readonly logCondition: typeof logCondition
}

const RUN: Work = {
  // On demand: the process of udp-proxy, of which there is one beside each weftd, does without.
  run: async (deps, signal) => (await import('./daemon.ts')).runDaemon(deps, signal),
  begins: 'weftd starts',
  stops: 'stopping; routes and pods stay as they are',
  logCondition
}
const CLEAN: Work = {
  run: async (deps, signal) => (await import('./daemon.ts')).cleanNode(deps, signal),
  begins: 'weftd clean: removing Weft from this node',
  stops: 'stopping; run weftd clean again to remove the rest',
  // Nothing is to be set up, so STARTING means nothing here.
  logCondition: (log) => {
    const logged = logCondition(log)
    return (condition, active) => condition.code === 'STARTING' || logged(condition, active)
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
  case 'udp-proxy help':
    process.stdout.write(printUdpProxyHelp(width))
    break
  case 'install':
    install(command.flags)
    break
  case 'udp-proxy':
    await carry(command.flags)
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
    case 'run': {
      const { ifaceRegex, setBy } = parsed.options
      const compile = await interfacePatterns(ifaceRegex, writtenAs(setBy, 'iface-regex'))
      if (typeof compile === 'function') await start(parsed, compile, work)
      else refuse(compile)
    }
  }
}

/** Loaded on demand: a daemon does not need weftctl. */
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

/** Loaded on demand, as weftctl. */
async function carry({ stateDir, replace }: { readonly stateDir: string; readonly replace: boolean }): Promise<void> {
  const [{ runProxy }, { proxyPath }] = await Promise.all([import('./udp/server.ts'), import('./udp/connection.ts')])
  nameProcess('weftd-udp')
  const log = openLog('info')
  spareFromOom()
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort())
  try {
    await runProxy({ path: proxyPath(stateDir), version: manifest.version, replace, log }, stop.signal)
  } catch (error) {
    const fields = error instanceof WeftError ? { code: error.code, cure: error.cure } : { err: error }
    log.error(fields, `weftd udp-proxy can't continue: ${printable(reasonOf(error))}`)
    exitAtOnce(1)
  }
  exitAtOnce(0)
}

/** Not under systemd, which has set it already and allows no change. */
function spareFromOom(): void {
  try {
    writeFileSync('/proc/self/oom_score_adj', '-900')
  } catch {
    // It goes on without.
  }
}

function openLog(level: string): Log {
  return pino({ level, base: null, hooks: { streamWrite: printableJson } }, pino.destination({ fd: 2, sync: true }))
}

/**
 * For ps(1), pgrep(1), and the error of a second weftd: Node gives its main thread another name. Not process.title,
 * which would overwrite the flags.
 */
function nameProcess(name: string): void {
  try {
    writeFileSync('/proc/self/comm', name)
  } catch {
    // The name is not essential.
  }
}

async function start(
  { options, unknownVariables, warnings }: Run,
  compile: DaemonDeps['compile'],
  work: Work
): Promise<void> {
  // libuv creates its thread pool on first use. Calls that wait for the kernel may occupy five threads
  // (kernel/netlink/lane.ts), and files on file systems that do not answer six (ipam/read-file.ts); name lookups and
  // other files need some too.
  process.env.UV_THREADPOOL_SIZE ??= '14'
  nameProcess('weftd')
  const log = openLog(options.v > 0 ? 'debug' : 'info')
  const stop = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info({ signal }, work.stops)
      stop.abort()
    })
  }
  const fail = (error: unknown, message: string) => {
    // An error that the user can fix is one line with the cure; a bug needs its stack.
    const fields = error instanceof WeftError ? { code: error.code, cure: error.cure } : { err: error }
    log.error(fields, `${message}: ${printable(reasonOf(error))}`)
    exitAtOnce(1)
  }
  process.on('unhandledRejection', (error) => fail(error, 'unhandled promise rejection'))
  process.on('uncaughtException', (error) => fail(error, 'weftd failed'))

  log.info({ version: manifest.version, runtime: process.version, pid: process.pid }, work.begins)
  for (const warning of warnings) log.warn({}, warning)
  const health = new Health(Date.now, work.logCondition(log))
  reportUnknownVariables(health, unknownVariables)
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
        compile,
        environment: process.env
      },
      stop.signal
    )
  } catch (error) {
    if (!stop.signal.aborted) fail(error, "weftd can't continue")
  }
  log.info({}, 'stopped')
  // Sockets that add-ons and libraries keep open are closed by the kernel.
  exitAtOnce(Number(process.exitCode ?? 0))
}

/** The installation's identity (machine-id(5)); without one, only the node's name distinguishes nodes. */
function machineId(): string {
  try {
    return contentOf('/etc/machine-id')?.trim() ?? ''
  } catch {
    return ''
  }
}
