// Every code of a WeftError in the source is on the page of errors, and no other.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { WeftError } from '../../../daemon/base/error.ts'
import { variableOf } from '../../../daemon/cli/flag-parser.ts'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { cniError } from '../../../daemon/cni/error-codes.ts'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import { cniCode } from '../../../plugins/cni/error.ts'
import { ERRORS } from '../../../scripts/docs/errors.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const page = readFileSync(join(root, 'docs/errors.md'), 'utf8')
const CODE = /[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*/.source

/**
 * What is thrown: the first argument of `new WeftError(…)` and of `super(…)` in a class of its kind, `code:` in an
 * answer, and values that may become one (a variable is followed to the texts that stand in its line).
 */
function codesIn(source: string): readonly string[] {
  const thrown = new RegExp(
    `(?:new WeftError\\(\\s*|super\\(\\s*|\\bcode: |\\bcode = [^'\\n]*\\? )'(${CODE})'(?: : '(${CODE})')?`,
    'g'
  )
  return [...source.matchAll(thrown)].flatMap(([, one = '', other]) => (other === undefined ? [one] : [one, other]))
}

const sources = globSync('{daemon,ipam,plugins}/**/*.ts', { cwd: root })
  .filter((path) => path !== 'daemon/health/conditions.ts')
  .map((path) => readFileSync(join(root, path), 'utf8'))
/** `EACCES` and its like are the kernel's. */
const inSource = new Set(sources.flatMap(codesIn).filter((code) => !/^E[A-Z0-9]+$/.test(code)))
const known = new Set([...Object.keys(ERRORS), ...Object.keys(CONDITIONS)])

test('the source has codes where they are looked for', () => {
  assert.ok(inSource.size > 40, [...inSource].join())
  assert.deepEqual(codesIn(`throw new WeftError(\n  'A_B',\n 'x')`), ['A_B'])
  assert.deepEqual(codesIn(`const code = isDenied(cause) ? 'A_B' : 'C'`), ['A_B', 'C'])
})

test('every WeftError is made with a code in plain sight, so that none is missed', () => {
  const hidden = sources.flatMap((source) =>
    [...source.matchAll(/new WeftError\(\s*([^'\s,][^,]*),/g)].map(([, first]) => first)
  )
  // `error.code` hands on what another has been made with; `code` is the one of etcd's two, which the test above reads.
  assert.deepEqual(
    [...new Set(hidden)].filter((code) => !code?.endsWith('.code')),
    ['code']
  )
})

test('every code of the source has a row: write it in scripts/docs/errors.ts, then run it', () => {
  assert.deepEqual([...inSource].filter((code) => !known.has(code)).sort(), [])
})

test('every row is of a code that the source has', () => {
  assert.deepEqual(
    Object.keys(ERRORS).filter((code) => !inSource.has(code)),
    []
  )
  const both = Object.keys(ERRORS).filter((code) => code in CONDITIONS)
  assert.deepEqual(both, [], 'a condition has its words in daemon/health/conditions.ts')
})

test('the page names every code, and every code that it names is one', () => {
  const named = new Set([...page.matchAll(new RegExp(`^\\| \`(${CODE})\` \\|`, 'gm'))].map(([, code = '']) => code))
  assert.deepEqual(
    [...known].filter((code) => !named.has(code)),
    []
  )
  assert.deepEqual(
    [...named].filter((code) => !known.has(code)),
    []
  )
})

test('each number of our own belongs to one code, and the page has all numbers', () => {
  const numbers = [...known].map((code) => cniError(new WeftError(code, '', '')).code)
  const own = numbers.filter((number) => number >= 100 && number !== cniCode.internal)
  assert.deepEqual(own.toSorted(), [...new Set(own)].toSorted())
  for (const number of own) assert.match(page, new RegExp(`\\| ${number} \\|`))
  for (const number of Object.values(cniCode)) assert.match(page, new RegExp(`^\\| ${number} \\|`, 'm'))
})

test('no text of the daemon names a variable that it does not read', () => {
  const read = new Set(Object.keys(FLAGS).map((name) => variableOf('WEFTD_', name)))
  const named = globSync('daemon/**/*.ts', { cwd: root }).flatMap((path) =>
    [...readFileSync(join(root, path), 'utf8').matchAll(/\bWEFTD_[A-Z0-9_]*[A-Z0-9]/g)].map(([name]) => name)
  )
  assert.ok(named.length > 0)
  // Names of constants.
  const others = ['WEFTD_FLAGS', 'WEFTD_COMMANDS']
  assert.deepEqual(
    named.filter((name) => !read.has(name) && !others.includes(name)),
    []
  )
})
