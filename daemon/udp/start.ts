// Starts the proxy as a process of its own: the same executable in a session of its own, which outlives weftd.
import { spawn } from 'node:child_process'
import type { Log } from '../base/log.ts'

/** `stateDirectory`: where its socket will be. `replace`: it takes over from one that runs. */
export function startProxy(stateDirectory: string, log: Log): (replace: boolean) => void {
  return (replace) => {
    const args = ['udp-proxy', `--state-dir=${stateDirectory}`, ...(replace ? ['--replace'] : [])]
    const child = spawn(process.execPath, [...script(), ...args], {
      detached: true,
      // Both write to weftd's log, also when weftd has ended.
      stdio: ['ignore', 'inherit', 'inherit']
    })
    child.on('error', (error) => log.error({ err: error }, "weftd udp-proxy can't be started"))
    child.on('exit', (code, signal) => log.info({ pid: child.pid, code, signal }, 'weftd udp-proxy has ended'))
    child.unref()
    log.info({ pid: child.pid, replace }, 'weftd udp-proxy started')
  }
}

/** In a single file the second word of argv is the name that was called. */
function script(): readonly string[] {
  const second = process.argv[1] ?? ''
  return /\.[cm]?[jt]s$/.test(second) ? [...process.execArgv, second] : []
}
