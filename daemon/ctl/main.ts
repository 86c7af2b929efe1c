// weftctl: hands the process's words, environment, streams and kubectl to run.ts.
import { execFile } from 'node:child_process'
import { basename } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import type { Kubectl } from './afar.ts'
import { run } from './run.ts'

/** Bytes of an answer: `nodes` of a large cluster has some hundred for each. */
const LONGEST = 64 << 20

const kubectl: Kubectl = (words) =>
  new Promise((resolve) => {
    execFile('kubectl', words, { maxBuffer: LONGEST }, (error, stdout, stderr) => {
      if (error === null) resolve({ exit: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ exit: error.code, stdout, stderr })
      else resolve({ exit: undefined, stdout, stderr: stderr || error.message })
    })
  })

process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  version: manifest.version,
  isPlugin: basename(process.argv[1] ?? '').startsWith('kubectl-'),
  kubectl,
  out: (text) => process.stdout.write(text),
  complain: (text) => process.stderr.write(text)
})
