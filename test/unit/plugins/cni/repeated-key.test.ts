// Keys that are written twice in a document: where they are looked for, and what only looks like one.
import { equal } from 'node:assert/strict'
import { test } from 'node:test'
import { repeatedKey } from '../../../../plugins/cni/repeated-key.ts'

const paths = ['a', 'b.c']

for (const [json, key] of [
  ['{"a":{"x":1,"y":2,"x":3}}', 'x'],
  ['{"A":{"x":{"x":1},"\\u0078":[]}}', 'x'],
  ['{"b":{"z":0,"c":{"k":{},"k":{}}}}', 'k'],
  ['{"b":[{"c":{"k":1,"k":1}}]}', undefined],
  ['{"x":1,"x":2,"a":{"x":"x","y":"x"}}', undefined],
  ['{"a":{"x":"\\",\\"x\\":1","y":"}"}}', undefined],
  ['{"a":["x","x"],"b":{"a":{"x":1,"x":1}}}', undefined],
  ['[]', undefined],
  ['"a"', undefined]
] as const)
  test(`${json} has ${key ?? 'none'} twice`, () => equal(repeatedKey(json, paths), key))

test('a document that is nested deeper than any stack is read', () => {
  const deep = `${'[{"a":'.repeat(100_000)}1${'}]'.repeat(100_000)}`
  equal(repeatedKey(deep, paths), undefined)
})
