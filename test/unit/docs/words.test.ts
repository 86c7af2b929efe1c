// The words of documents, conditions and help: no phrases that read as translated, and prose of at most 120 columns.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { printHelp } from '../../../daemon/cli/parse-options.ts'
import { printCleanHelp, printInstallHelp } from '../../../daemon/cli/subcommands.ts'
import { manualPage } from '../../../daemon/ctl/manual.ts'
import { WEFTD, weftctl } from '../../../daemon/ctl/programs.ts'
import { COMMANDS, LASTING, printHelp as printCtlHelp } from '../../../daemon/ctl/run.ts'
import { CONDITIONS } from '../../../daemon/health/conditions.ts'
import { ERRORS } from '../../../scripts/docs/errors.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const pages = globSync(['*.md', 'docs/*.md'], { cwd: root })
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

/** What to write instead, and what not to write. */
const PHRASES: readonly (readonly [instead: string, phrase: RegExp])[] = [
  ['cannot, can’t', /\bcan not\b(?! only)/i],
  ['reported', /\b(is|are|was|were|be|been) told\b|\btold (as|of)\b/i],
  ['ignored', /\bpass(es|ed)? (over|by)\b/i],
  ['repaired, restored', /\bput(s|ting)? right\b/i],
  ['Weft’s own objects', /\bwhat is ours\b|\b(is|are|of) ours\b/i],
  ['without, since there is no', /\bfor want of\b/i],
  ['requested', /\b(is|are|was|were|be) asked for\b/i],
  ['is, exists', /(?<!-)\bstands?\b(?!-| for)/i],
  ['notification', /\b(by|on) word of\b|\bword of each\b/i],
  ['the program that changed it', /\bmade (it |them |the \w+ )?necessary\b/i],
  ['config, request', /\bwish(es)?\b/i],
  ['the object itself', /\bthe message (names|says|lists)\b|\bsee the message\b|\bin the message\b/i],
  ['available', /\bat hand\b/i],
  ['again', /\banew\b/i],
  ['fix', /\bmend(s|ed)?\b/i],
  ['anyway', /\ball the same\b/i],
  ['instead of', /\bin the place of\b/i],
  ['attached to', /\bhangs? on\b/i],
  ['replaced', /\bgives? way\b/i],
  ['removed', /\b(take[sn]?|took) away\b/i],
  ['increasing delays', /\bgrowing pauses\b/i],
  ['path', /\bthe way to (a|the|another) (node|peer)/i],
  ['weftctl status', /\bdoctor\b/i]
]

function faultsIn(text: string): readonly string[] {
  const plain = text.replaceAll(/\s+/g, ' ')
  return PHRASES.flatMap(([instead, phrase]) =>
    [...plain.matchAll(new RegExp(phrase, 'gi'))].map(
      ({ 0: found, index }) => `"${found}" (${instead}): …${plain.slice(Math.max(0, index - 40), index + 40)}…`
    )
  )
}

test('the list finds what it is for', () => {
  assert.equal(faultsIn('It can\nnot be read; see the message. A reboot puts right what is ours.').length, 4)
  assert.deepEqual(faultsIn('It cannot be read. A stand-alone plugin still understands it.'), [])
})

const withoutQuotes = (text: string): string => text.replaceAll(/"[^"\n]*"/g, '')

for (const path of pages) {
  test(`the words of ${path}`, () => assert.deepEqual(faultsIn(withoutQuotes(read(path))), []))

  test(`lines of prose in ${path} have at most 120 columns`, () => {
    // A row of a table can't wrap, nor can a link.
    const long = read(path)
      .split('\n')
      .filter((line) => !line.startsWith('|') && [...line].length > 120)
    assert.deepEqual(long, [])
  })
}

test('the words of conditions and errors', () => {
  const rows = Object.entries(CONDITIONS).map(([code, { title, cure }]) => [code, `${title}. ${cure}`] as const)
  const errors = Object.entries(ERRORS).map(([code, words]) => [code, words.join('. ')] as const)
  const faults = [...rows, ...errors].flatMap(([code, text]) => faultsIn(text).map((fault) => `${code}: ${fault}`))
  assert.deepEqual(faults, [])
})

test('titles and cures of conditions are phrases of a sentence: no capital, no full stop, no reference to "our"', () => {
  const wrong = Object.entries(CONDITIONS).flatMap(([code, { title, cure }]) =>
    [title, cure]
      .filter((text) => /\.$|\bours?\b/.test(text) || /^[A-Z][a-z]/.test(text))
      .map((text) => `${code}: ${text}`)
  )
  assert.deepEqual(wrong, [])
})

test('the words of help and manual pages', () => {
  const program = weftctl({ ...COMMANDS, ...LASTING })
  const help = [printHelp(80), printInstallHelp(80), printCleanHelp(80), printCtlHelp(80)]
  const manuals = [manualPage(WEFTD, ''), manualPage(program, '')].map((page) => page.replaceAll('\\-', '-'))
  assert.deepEqual([...help, ...manuals].flatMap(faultsIn), [])
})
