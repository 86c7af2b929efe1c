// Whatever a reader copies out of the documents works: JSON, flags, commands, and the files that links point to.
import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { INSTALL_FLAGS } from '../../../daemon/cli/subcommands.ts'
import { parseNetConf } from '../../../daemon/config/net-conf.ts'
import { WEFTCTL_FLAGS } from '../../../daemon/ctl/programs.ts'
import { COMMANDS, LASTING } from '../../../daemon/ctl/run.ts'
import { forwardingPluginNamed, pluginNamed } from '../../../plugins/types/registry.ts'
import { addCall } from '../plugins/calls.ts'

const backends = registry(BACKENDS)
const root = fileURLToPath(new URL('../../../', import.meta.url))
const pages = globSync(['*.md', 'docs/*.md'], { cwd: root }).map((path) => ({
  path,
  text: readFileSync(join(root, path), 'utf8')
}))
const blocksOf = (text: string, language: string): readonly string[] =>
  [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, block = '']) => block)

test('there are examples', () => {
  assert.ok(pages.flatMap(({ text }) => blocksOf(text, 'json')).length >= 5)
  assert.ok(pages.flatMap(({ text }) => blocksOf(text, 'sh')).length >= 2)
})

type Configuration = { readonly plugins?: readonly { readonly type: string }[]; readonly Network?: string }

for (const { path, text } of pages) {
  for (const [at, block] of blocksOf(text, 'json').entries()) {
    test(`JSON example ${at + 1} of ${path} is what it is meant to be`, () => {
      const value = JSON.parse(block) as Configuration
      if (value.plugins !== undefined) {
        for (const { type, ...keys } of value.plugins) accepted(type, keys)
      } else if (value.Network !== undefined) {
        const { backendType, backend } = parseNetConf(block)
        backends.configure(backendType, backend)
      }
    })
  }
}

/** Our plugin takes the keys; another's is none of our business. */
function accepted(type: string, keys: object): void {
  const call = addCall(type, keys)
  pluginNamed(type)?.attachment(call)
  forwardingPluginNamed(type)?.forward(call, { network: {}, subnet: {} })
}

/** The words of each line that begins with this program, comments left out. */
function commandLines(program: string): readonly (readonly [path: string, line: string])[] {
  return pages.flatMap(({ path, text }) =>
    [...blocksOf(text, 'sh'), ...[...text.matchAll(/`([^`\n]+)`/g)].map(([, inline = '']) => inline)]
      .flatMap((block) => block.split('\n'))
      .map((line) => line.replace(/#.*/, '').trim())
      .filter((line) => new RegExp(`(^|-- |sudo )${program} `).test(line))
      .map((line) => [path, line.slice(line.indexOf(`${program} `))] as const)
  )
}

const flagsIn = (line: string): readonly string[] =>
  [...line.matchAll(/(?<=\s)--?([a-z][a-z0-9-]*)/g)].map(([, flag = '']) => flag)

test('every flag of weftd and weftctl in a command of the documents exists', () => {
  const wrong = (program: string, flags: object) =>
    commandLines(program).flatMap(([path, line]) =>
      flagsIn(line)
        .filter((flag) => !Object.hasOwn(flags, flag))
        .map((flag) => `${path}: ${program} --${flag}`)
    )
  assert.deepEqual(wrong('weftd', { ...FLAGS, ...INSTALL_FLAGS }), [])
  assert.deepEqual(wrong('weftctl', WEFTCTL_FLAGS), [])
})

test('every command of weftctl in the documents exists, and the documents tell them all', () => {
  const named = commandLines('weftctl').map(([path, line]) => [path, line.split(' ')[1] ?? ''] as const)
  const all = [...Object.keys({ ...COMMANDS, ...LASTING }), 'completion', 'man']
  assert.deepEqual(
    named.filter(([, word]) => !word.startsWith('-') && !all.includes(word)),
    []
  )
  const documented = new Set(named.map(([, word]) => word))
  assert.deepEqual(
    Object.keys({ ...COMMANDS, ...LASTING }).filter((name) => !documented.has(name)),
    []
  )
})

test('flags in the prose of the documents exist', () => {
  const known = new Set([...Object.keys(FLAGS), ...Object.keys(WEFTCTL_FLAGS), ...Object.keys(INSTALL_FLAGS)])
  const page = pages.find(({ path }) => path === 'docs/configuration.md')?.text ?? assert.fail()
  const named = [...page.matchAll(/(?<![\w-])--([a-z][a-z0-9_-]+)/g)].map(([, flag = '']) => flag)
  assert.deepEqual(
    named.filter((flag) => !known.has(flag)),
    []
  )
})

test('every link of the documents points to a file that is there', () => {
  const missing = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)[^)]*\)/g)]
      .map(([, to = '']) => to)
      .filter((to) => !existsSync(join(root, dirname(path), to)))
      .map((to) => `${path}: ${to}`)
  )
  assert.deepEqual(missing, [])
})

test('the README leads to every document', () => {
  const readme = pages.find(({ path }) => path === 'README.md')?.text ?? assert.fail()
  assert.deepEqual(
    globSync('docs/*.md', { cwd: root }).filter((path) => !readme.includes(`(${path})`)),
    []
  )
})
