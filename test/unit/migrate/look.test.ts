// Whose processes count as flanneld.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { trustedPidsOf } from '../../../daemon/lifecycle/processes.ts'

const NAME = 'weft-look-test'

const isRoot = process.getuid?.() === 0

test('a process that another user has given the name does not count', { skip: !isRoot && 'needs root' }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'weft-look-'))
  t.after(() => rmSync(directory, { recursive: true }))
  chmodSync(directory, 0o755)
  const program = join(directory, NAME)
  symlinkSync('/bin/sleep', program)
  const [ours, theirs] = [spawn(program, ['60']), spawn(program, ['60'], { uid: 65_534, gid: 65_534 })]
  t.after(() => [ours, theirs].map((child) => child.kill('SIGKILL')))
  await Promise.all([once(ours, 'spawn'), once(theirs, 'spawn')])
  assert.deepEqual(trustedPidsOf(NAME), [ours.pid])
})
