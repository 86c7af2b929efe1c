// A program that can't be started is a fault of the command, whatever the reason.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'

const RUN = new URL('../../../daemon/commands/run-program.ts', import.meta.url).href

const script = `
import { openSync } from 'node:fs'
const { runProgram } = await import('${RUN}')
const run = () => {
  const program = { file: 'true', args: [], environment: {}, input: '' }
  return runProgram(program, { deadlineMs: 60_000, signal: new AbortController().signal })
}
await run()
try {
  for (;;) openSync('/dev/null')
} catch {}
const { fault } = await run()
console.log(fault)
`

test('without a file descriptor left a command fails, and its caller goes on', async () => {
  const words = ['-c', 'ulimit -n 100; exec "$0" --input-type=module -e "$1"', process.execPath, script]
  const { stdout } = await promisify(execFile)('sh', words)
  assert.match(stdout, /^can't be run: .*EMFILE/)
})
