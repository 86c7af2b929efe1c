// docs/flannel.md is true: every flag, key and backend has its row, what it says of backends is what weftd has, and
// every test that it names is there.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { BACKENDS } from '../../../daemon/backend/registry.ts'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { netConfSchema } from '../../../daemon/config/net-conf.schema.ts'
import { flannelRows } from './flannel-rows.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const text = readFileSync(join(root, 'docs/flannel.md'), 'utf8')
const rows = flannelRows(text)
const of = (heading: string) => rows.filter((row) => row.heading === heading)
/** What stands in backquotes in the first column. */
const names = (heading: string) =>
  of(heading).map(({ what }) => [...what.matchAll(/`([^`]+)`/g)].map(([, word = '']) => word))

test('a row says same, better or not done, and the first two name a test', () => {
  assert.ok(rows.length > 60)
  for (const { what, how, why } of rows) {
    assert.match(how, /^(same|better|not done)$/, what)
    if (how === 'not done') assert.ok(why.length > 10, what)
    else assert.match(why, /`test\/[^`]+(\.test|\/stories\/[^`]+)\.ts` "/, what)
  }
})

test('every test that it names is there', () => {
  const named = [...text.replaceAll('\n', ' ').matchAll(/`(test\/[^`]+\.ts)` "([^"]+)"/g)]
  assert.ok(named.length > 60)
  for (const [, path = '', words = ''] of named) {
    assert.ok(existsSync(join(root, path)), path)
    const source = readFileSync(join(root, path), 'utf8').replaceAll("\\'", "'")
    assert.ok(source.includes(words), `${path} has no test "${words}"`)
  }
})

test('flags of flanneld are flags of weftd', () => {
  for (const [flag = ''] of names('Flags')) assert.ok(flag.replace('--', '') in FLAGS, flag)
})

test('each key of the network configuration has its row', () => {
  assert.deepEqual(
    names('Keys of the network configuration').flat().sort(),
    Object.keys(netConfSchema.properties).sort()
  )
})

test('a backend is the same or better if weftd has it, and each of its keys has a row', () => {
  const [types, keys] = [
    of('Backends').filter(({ what }) => !/` `/.test(what)),
    names('Backends').filter(({ length }) => length === 2)
  ]
  const has = types.filter(({ how }) => how !== 'not done').map(({ what }) => what.replaceAll('`', ''))
  assert.deepEqual(has.sort(), BACKENDS.map(({ type }) => type).sort())
  const ours = BACKENDS.flatMap((backend) => Object.keys(backend.keys).map((key) => `${backend.type} ${key}`))
  assert.deepEqual(keys.map((each) => each.join(' ')).sort(), ours.sort())
})
