// `weftd install | head`: programs that print exit quietly when the reader closes the pipe.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { exitOnClosedPipe } from '../../../daemon/ctl/closed-reader.ts'

const programs = { weftd: '../../../daemon/main.ts', weftctl: '../../../daemon/ctl/main.ts' }

for (const [program, file] of Object.entries(programs))
  for (const word of ['--help', 'man'])
    test(`${program} ${word} into a pipe that nobody reads says nothing and ends with 0`, async () => {
      const child = spawn(process.execPath, [fileURLToPath(new URL(file, import.meta.url)), word], {
        stdio: ['ignore', 'pipe', 'pipe']
      })
      child.stdout.destroy()
      const [said, [exit]] = await Promise.all([text(child.stderr), once(child, 'exit')])
      assert.deepEqual({ said, exit }, { said: '', exit: 0 })
    })

test('what went wrong otherwise is thrown', () => {
  const stream = new PassThrough()
  exitOnClosedPipe(stream)
  assert.throws(() => stream.emit('error', Object.assign(new Error('full'), { code: 'ENOSPC' })), { code: 'ENOSPC' })
})
