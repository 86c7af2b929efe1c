// What `--name` counts: tests whose name matches, and nothing where none does.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

function runTests(...words: readonly string[]): { readonly status: number | null; readonly lines: readonly string[] } {
  // The runner of this very test must not take the other one for a file of its own.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { status, stdout } = spawnSync(process.execPath, ['scripts/run-tests.ts', 'unit', ...words], {
    ...{ cwd: root, env, encoding: 'utf8', timeout: 60_000 }
  })
  return { status, lines: stdout.trimEnd().split('\n') }
}

test('with a name, only tests that bear it are counted, and files without one are not told', () => {
  const { status, lines } = runTests(
    'test/unit/base/backoff.test.ts',
    'test/unit/no-such.test.ts',
    '--name=begins anew'
  )
  assert.equal(lines.at(-1), '1 passed, 1 failed, 0 skipped', 'a file that is missing is still a failure')
  assert.equal(status, 1)
  const other = runTests('test/unit/base/backoff.test.ts', 'test/unit/node/unknown-keys.test.ts', '--name=begins anew')
  assert.deepEqual([other.status, other.lines.at(-1)], [0, '1 passed, 0 failed, 0 skipped'])
  assert.equal(
    other.lines.some((line) => line.includes('unknown-keys')),
    false
  )
})

test('a name that no test bears is a failure that says so', () => {
  const { status, lines } = runTests('test/unit/base/backoff.test.ts', '--name=nobody is called so')
  assert.deepEqual([status, lines.at(-1)], [1, '0 passed, 1 failed, 0 skipped'])
  assert.match(lines.join('\n'), /FAILED --name=nobody is called so\n +no test of unit/)
})
