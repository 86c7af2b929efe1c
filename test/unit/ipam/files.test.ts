// What may be missing and what must be readable: a file that is not there is no fault, every other reason is one that
// names it.
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { contentOf, ifThere } from '../../../ipam/files.ts'

let base = ''
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'weft-files-'))
})
afterEach(() => rmSync(base, { recursive: true }))

test('a file has its content, and one that is not there has none', () => {
  writeFileSync(join(base, 'a'), 'text\n')
  assert.equal(contentOf(join(base, 'a')), 'text\n')
  assert.equal(contentOf(join(base, 'b')), undefined)
  assert.equal(
    ifThere(join(base, 'c'), (path) => readdirSync(path)),
    undefined
  )
})

test('what is there and cannot be read is an error with its path and the code of the system', () => {
  mkdirSync(join(base, 'directory'))
  writeFileSync(join(base, 'file'), '')
  for (const [path, code] of [
    [join(base, 'directory'), 'EISDIR'],
    [join(base, 'file', 'below'), 'ENOTDIR']
  ] as const)
    assert.throws(() => contentOf(path), { code, message: new RegExp(path) })
})
