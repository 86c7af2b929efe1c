// Entry of weftctl: passes the process's arguments, environment, streams and kubectl to run.ts.
import { basename } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { exitOnClosedPipe } from './closed-reader.ts'
import { kubectl } from './kubectl.ts'
import { run } from './run.ts'

exitOnClosedPipe(process.stdout, process.stderr)
process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  version: manifest.version,
  isPlugin: basename(process.argv[1] ?? '').startsWith('kubectl-'),
  kubectl,
  stopped() {
    const end = new AbortController()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => end.abort())
    return end.signal
  },
  out: (text) => process.stdout.write(text),
  complain: (text) => process.stderr.write(text)
})
