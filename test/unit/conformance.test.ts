// docs/conformance.md against the tests that it names: neither says anything that the other does not, and its matrix is
// what its list adds up to.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { supportedVersions } from '../../plugins/cni/version.ts'
import { pluginTypes } from '../../plugins/types/registry.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const page = readFileSync(join(root, 'docs/conformance.md'), 'utf8')
/** As plain text, since the page may have anything. */
const versions: readonly string[] = supportedVersions
const verbs = ['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION']
const callers = ['containerd', 'podman', 'cnitool', "CRI-O's order", 'reference']

type Row = {
  readonly plugins: readonly string[]
  readonly verbs: readonly string[]
  readonly versions: readonly string[]
  readonly caller: string
  readonly file: string
  readonly name: string
}

/** `all`, `up to a`, `a–b` and `a, b`; anything else than versions of the specification is an error. */
function versionsOf(text: string): readonly string[] {
  if (text === 'all') return supportedVersions
  return text.split(', ').flatMap((part) => {
    const [from = '', to = from] = part.replace('up to ', `${versions[0]}–`).split('–')
    const [first, last] = [from, to].map((version) => versions.indexOf(version))
    assert.ok(first !== undefined && last !== undefined && first >= 0 && last >= first, `not versions: ${text}`)
    return versions.slice(first, last + 1)
  })
}

const rows: readonly Row[] = page
  .slice(page.indexOf('## The tests'))
  .split('\n')
  .filter((line) => line.startsWith('| ') && !/^\| (plugins|---) /.test(line))
  .map((line) => {
    const [plugins = '', asked = '', versions = '', caller = '', file = '', ...name] = line.slice(2, -2).split(' | ')
    return {
      plugins: plugins.split(', '),
      verbs: asked === '–' ? [] : asked.split(' '),
      versions: versionsOf(versions),
      caller,
      file,
      name: name.join(' | ')
    }
  })

/** Names of the tests in a file, with … for each value that is put into them. */
function testsIn(path: string): readonly string[] {
  const calls = readFileSync(join(root, path), 'utf8').matchAll(/^\s*test\(\s*(['"`])(.*?)(?<!\\)\1/gm)
  return [...calls].map(([, , name = '']) => name.replaceAll(/\$\{[^}]*\}/g, '…'))
}

const paths = globSync('test/cni/*.test.ts', { cwd: root })
const named = (path: string): string => basename(path, '.test.ts')

test('the page has rows, and there are tests of runtimes', () => {
  assert.ok(rows.length > 20, `${rows.length} rows`)
  assert.ok(paths.filter((path) => named(path).startsWith('runtime-')).flatMap(testsIn).length > 20)
})

test('every test that the page of conformance names is in the file that it names', () => {
  const there = new Set(paths.flatMap((path) => testsIn(path).map((name) => `${named(path)}: ${name}`)))
  assert.deepEqual(
    rows.map(({ file, name }) => `${file}: ${name}`).filter((row) => !there.has(row)),
    []
  )
})

test('every test of a runtime is on the page of conformance', () => {
  const listed = new Set(rows.map(({ file, name }) => `${file}: ${name}`))
  const tests = paths
    .filter((path) => named(path).startsWith('runtime-'))
    .flatMap((path) => testsIn(path).map((name) => `${named(path)}: ${name}`))
  assert.deepEqual(
    tests.filter((name) => !listed.has(name)),
    []
  )
})

test('the page of conformance knows the plugins, verbs and callers, and leaves out no plugin', () => {
  for (const row of rows) {
    assert.deepEqual(
      row.plugins.filter((plugin) => !pluginTypes.includes(plugin)),
      [],
      row.name
    )
    assert.deepEqual(
      row.verbs.filter((verb) => !verbs.includes(verb)),
      [],
      row.name
    )
    assert.ok(callers.includes(row.caller), row.caller)
  }
  const listed = new Set(rows.flatMap(({ plugins }) => plugins))
  assert.deepEqual(
    pluginTypes.filter((type) => !listed.has(type)),
    [],
    'plugins without a row: name them in rows of the page whose tests call them'
  )
})

/** Versions in order, neighbours drawn together. */
function spans(versions: ReadonlySet<string>): string {
  if (versions.size === supportedVersions.length) return 'all'
  const parts: [string, string][] = []
  for (const [n, version] of supportedVersions.entries()) {
    const last = parts.at(-1)
    if (!versions.has(version)) continue
    if (last !== undefined && last[1] === supportedVersions[n - 1]) last[1] = version
    else parts.push([version, version])
  }
  const drawn = ([from, to]: readonly [string, string]) =>
    from === supportedVersions[0] ? `up to ${to}` : `${from}–${to}`
  return parts.map((part) => (part[0] === part[1] ? part[0] : drawn(part))).join(', ')
}

function cell(plugin: string, verb: string): string {
  const entries = callers.flatMap((caller) => {
    const those = rows.filter(
      (row) => row.caller === caller && row.plugins.includes(plugin) && row.verbs.includes(verb)
    )
    const versions = new Set(those.flatMap((row) => row.versions))
    return versions.size === 0 ? [] : [`${caller} ${spans(versions)}`]
  })
  return entries.length === 0 ? '–' : entries.join('<br>')
}

function matrix(): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [
    line(['plugin', ...verbs]),
    line(['plugin', ...verbs].map(() => '---')),
    ...pluginTypes
      .filter((plugin) => rows.some(({ plugins }) => plugins.includes(plugin)))
      .map((plugin) => line([plugin, ...verbs.map((verb) => cell(plugin, verb))]))
  ].join('\n')
}

test('the matrix on the page of conformance is what its rows add up to', () => {
  const [, printed = ''] = /<!-- printed from the next table -->\n([\s\S]*?)<!-- end -->/.exec(page) ?? []
  assert.equal(printed.trim(), matrix(), `the matrix should be\n${matrix()}\n`)
})
