// Command lines without a shell: words, quotes and variables are those of sh, and what only a shell could do is refused.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import fc from 'fast-check'
import { filledIn, parseWords, ShellSyntax, type Word } from '../../../daemon/commands/words.ts'

const environment = { SUBNET: '10.1.2.0/24', PUBLIC_IP: '192.0.2.2', TWO: 'a b', STAR: '*' }
const wordsOf = (text: string) => filledIn(parseWords(text), environment)
/** What sh makes of it. */
const byShell = (text: string): readonly string[] =>
  execFileSync('sh', ['-c', `set -f; IFS=; printf '%s\\0' ${text}`], { env: environment, encoding: 'utf8' })
    .split('\0')
    .slice(0, -1)

test('words are separated by blanks, and variables are filled in as a whole', () => {
  assert.deepEqual(wordsOf(`ip  route\tadd $SUBNET via \${PUBLIC_IP}`), [
    ...['ip', 'route', 'add', '10.1.2.0/24', 'via', '192.0.2.2']
  ])
  assert.deepEqual(wordsOf('a $TWO x$TWO.y $MISSING $STAR'), ['a', 'a b', 'xa b.y', '', '*'])
})

test('quotes and backslashes are those of sh', () => {
  for (const text of [
    `a 'b  c' "d $PUBLIC_IP" e\\ f`,
    `'a;b|c' "x;y" "it's" '"' "\\"\\$SUBNET\\\\" "a\\b"`,
    `"" '' a""b 'x'"y"z`,
    `--opt=$SUBNET pre"$TWO"post`,
    `a=b x=1 {a,b} a]b 50% @ : ! ^`
  ])
    assert.deepEqual(wordsOf(`run ${text}`).slice(1), byShell(text), text)
})

test('whatever is accepted means the same to sh', () => {
  const pieces = fc.constantFrom(...'ab$"\'\\ ;*{}=~#', '$SUBNET', `\${TWO}`, '"x"', "'y'", ' ')
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 12 }), (parts) => {
      const text = `x ${parts.join('')}`
      let words: readonly string[]
      try {
        words = wordsOf(text)
      } catch (error) {
        assert.ok(error instanceof ShellSyntax)
        return
      }
      // An unquoted variable without a value is no word to sh; here it is an empty one.
      const isUnset = (part: Word[number]) => typeof part !== 'string' && !(part.variable in environment)
      if (parseWords(text).some((word) => word.every(isUnset))) return
      assert.deepEqual(words, byShell(text), text)
    }),
    { numRuns: 300 }
  )
})

for (const [text, says] of Object.entries({
  'a; b': /";" at character 2/,
  'a | b': /"\|" at character 3/,
  'a && b': /"&" at character 3/,
  'a > b': /">" at character 3/,
  'a $(b)': /"\$" without the name of a variable at character 3/,
  'a "$(b)"': /"\$" without the name of a variable at character 4/,
  'a "`b`"': /"`" at character 4/,
  'a `b`': /"`" at character 3/,
  'a $1': /"\$" without/,
  'a ${b:-c}': /"\$" without/,
  'a *.c': /"\*" at character 3/,
  'a\nb': /"\\n" at character 2/,
  'a ~/b': /"~" at character 3/,
  'a # b': /a comment at character 3/,
  'A=b c': /an assignment at character 1/,
  "a 'b": /a quote without an end at character 3/,
  'a "b': /a quote without an end at character 3/,
  'a \\': /"\\\\" at character 3/,
  '  ': /has no words/
}))
  test(`refused: ${JSON.stringify(text)}`, () => {
    assert.throws(
      () => parseWords(text),
      (error) => error instanceof ShellSyntax && says.test(error.message)
    )
  })
