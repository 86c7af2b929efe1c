// weftctl: hands the process's words, environment and streams to run.ts.
import manifest from '../../package.json' with { type: 'json' }
import { run } from './run.ts'

process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  version: manifest.version,
  out: (text) => process.stdout.write(text),
  complain: (text) => process.stderr.write(text)
})
