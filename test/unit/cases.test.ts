// The numbered cases of the CNI reference: each of the 80 is shown by a test that has its number in its name.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const LAST = 80

/** Names of the tests in a file, as they are written. */
const namesIn = (text: string): readonly string[] =>
  [...text.matchAll(/^\s*test\(\s*(['"`])(.*?)(?<!\\)\1/gm)].map(([, , name = '']) => name)

/** `case 7: …`, `cases 7 and 9: …`, `cases 7 to 9: …`. */
function numbersOf(name: string): readonly number[] {
  const single = /^case (\d+): ./.exec(name)
  if (single) return [Number(single[1])]
  const [, first = '', word = '', last = ''] = /^cases (\d+) (and|to) (\d+): ./.exec(name) ?? []
  if (word === 'and') return [Number(first), Number(last)]
  return word === '' ? [] : Array.from({ length: Number(last) - Number(first) + 1 }, (_, n) => Number(first) + n)
}

const names = globSync('test/{cni,lab,unit}/**/*.test.ts', { cwd: root }).flatMap((path) =>
  namesIn(readFileSync(join(root, path), 'utf8'))
)

test('the numbers in a name are read', () => {
  assert.deepEqual(['case 7: x', 'cases 7 and 9: x', 'cases 7 to 9: x', 'in case 7: x', 'case 7'].map(numbersOf), [
    [7],
    [7, 9],
    [7, 8, 9],
    [],
    []
  ])
})

test('each of the 80 cases of the CNI reference is the name of a test', () => {
  const shown = new Set(names.flatMap(numbersOf))
  const missing = Array.from({ length: LAST }, (_, n) => n + 1).filter((number) => !shown.has(number))
  assert.deepEqual(missing, [], 'cases without a test')
  assert.deepEqual(
    [...shown].filter((number) => number < 1 || number > LAST),
    [],
    'numbers that no case has'
  )
})

test('a name that speaks of cases begins with their numbers, so that none is overlooked', () => {
  const odd = names.filter((name) => /\bcases? \d/.test(name) && numbersOf(name).length === 0)
  assert.deepEqual(odd, [])
})
