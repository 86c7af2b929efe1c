// The fuzzers aim at every key: what the plugins' files look up in a configuration is what the generated configurations
// have.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isObject } from '../../plugins/cni/field.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'
import { configuration } from './call.ts'
import { Random } from './random.ts'

const root = join(import.meta.dirname, '../..')

/** Those of weftd's socket, and what the executable makes of a call before any plugin. */
const OF_OTHERS = ['plugins/protocol.ts', 'plugins/main.ts']

/** Names of an attachment's members and words of errors that stand on such lines. */
const NO_KEYS = ['allMulticast', 'given']

/**
 * What is looked up, and the words that are allowed there: they stand on the lines that look. Texts with anything else
 * in them are for people.
 */
function wordsLookedUp(): ReadonlyMap<string, string> {
  const words = new Map<string, string>()
  const files = [
    ...globSync(['plugins/*.ts', 'plugins/{types,keys}/*.ts'], { cwd: root }).filter(
      (path) => !OF_OTHERS.includes(path)
    ),
    ...['plugins/cni/result.ts', 'daemon/cni/valid-attachments.ts']
  ]
  for (const path of files) {
    for (const line of readFileSync(join(root, path), 'utf8').split('\n')) {
      if (!/\b(member|descend|decoded|textOf|list|flagOf)\(|\bKEYS = /.test(line)) continue
      for (const [, word = ''] of line.matchAll(/'(\w[\w./-]*)'/g)) if (!NO_KEYS.includes(word)) words.set(word, path)
    }
  }
  return words
}

/** Every key and every text in `value`. */
function collect(value: unknown, into: Set<string>): void {
  if (typeof value === 'string') into.add(value)
  else if (Array.isArray(value)) for (const each of value) collect(each, into)
  else if (isObject(value)) {
    for (const [key, inner] of Object.entries(value)) {
      into.add(key)
      collect(inner, into)
    }
  }
}

test('the generated configurations have every key that a plugin looks up, and every word that a key allows', () => {
  const wanted = wordsLookedUp()
  // A new way of looking a key up must be told to this test, which would see nothing of it.
  const known = ['conditionsV4', 'shapedSubnets', 'promisc', 'rangeStart', 'ip6', 'search', 'containerID', 'vepa']
  assert.deepEqual(
    known.filter((word) => !wanted.has(word)),
    [],
    'not seen in the plugins'
  )
  assert.ok(wanted.size >= 95, `only ${wanted.size} words were seen`)
  const there = new Set<string>(pluginTypes)
  const random = new Random('every key')
  for (let times = 0; times < 2_000; times++) collect(configuration(random, random.pick(pluginTypes)), there)
  assert.deepEqual(
    [...wanted].filter(([word]) => !there.has(word)).map(([word, path]) => `${path}: ${word}`),
    [],
    'name them in test/fuzz/keys.ts'
  )
})
