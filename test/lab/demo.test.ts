// The demo as a reader runs it, with the single file that is shipped: a full matrix, and nothing left of it.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from './run.ts'
import { leftovers } from './sweep.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const demo = fileURLToPath(new URL('../../scripts/demo', import.meta.url))
/** Its own process ends before we look, so whatever is left is of a dead one. */
const left = () => new Set(leftovers())

test('the demo prints who reaches whom, by which path, and takes everything away', {
  skip,
  timeout: 900_000
}, async () => {
  const before = left()
  const { stdout, stderr } = await run('bash', [demo, '--nodes', '2', '--pods', '1'], {
    env: { WEFT_LAB_BIN: '1' },
    timeoutMs: 900_000
  })
  const [head = '', ...rows] = stdout.split('\n').slice(stdout.split('\n').findIndex((line) => line.startsWith('from')))
  assert.match(head, /^from \\ to\s+pod-1a\s+pod-2a$/, stdout)
  assert.match(rows[0] ?? '', /^pod-1a\s+·\s+[\d.]+ vxlan$/, stdout)
  assert.match(rows[1] ?? '', /^pod-2a\s+[\d.]+ vxlan\s+·$/, stdout)
  assert.match(stderr, /every pod reaches every pod/)
  assert.doesNotMatch(stderr, /setup: ready/, 'what sets up is no part of the story when nothing was missing')
  assert.deepEqual(
    [...left()].filter((line) => !before.has(line)),
    []
  )
})

test('with host-gw on an etcd, what the demo leaves up works as it says, and goes when told', {
  skip,
  timeout: 900_000
}, async () => {
  const before = left()
  const { stdout } = await run('bash', [demo, '--nodes=2', '--pods=1', '--backend=host-gw', '--store=etcd', '--keep'], {
    env: { WEFT_LAB_BIN: '1' },
    timeoutMs: 900_000
  })
  assert.match(stdout, /^pod-1a\s+·\s+[\d.]+ direct$/m)
  const commands = stdout.split('\n').flatMap((line) => (line.startsWith('  ') ? [line.trim()] : []))
  const removal = commands.findIndex((command) => command.startsWith('scripts/demo --remove '))
  assert.ok(removal > 3, stdout)
  const folder = fileURLToPath(new URL('../..', import.meta.url))
  try {
    for (const command of commands.slice(0, removal)) await run('bash', ['-c', `cd ${folder} && ${command}`])
  } finally {
    await run('bash', ['-c', `cd ${folder} && ${commands[removal]}`], { timeoutMs: 300_000 })
  }
  assert.deepEqual(
    [...left()].filter((line) => !before.has(line)),
    []
  )
})

test('the demo names an option that is wrong before it builds anything', { skip, timeout: 300_000 }, async () => {
  const { code, stderr } = await run('bash', [demo, '--nodes=many'], { check: false, timeoutMs: 300_000 })
  assert.equal(code, 2)
  assert.match(stderr, /--nodes is "many"\ncure: use a whole number from 1 to 50/)
  assert.doesNotMatch(stderr, /build:/)
})
