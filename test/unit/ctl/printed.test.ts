// Completion scripts and manual pages, parsed by bash, zsh, fish and groff.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import test from 'node:test'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { run } from '../../../daemon/ctl/run.ts'
import { splitWords } from '../../../daemon/ctl/split-words.ts'

async function printed(...words: readonly string[]): Promise<string> {
  let [out, complaints] = ['', '']
  const exit = await run(words, {
    ...{ env: {}, version: '1.2.3' },
    out(text) {
      out += text
    },
    complain(text) {
      complaints += text
    }
  })
  assert.deepEqual([exit, complaints], [0, ''])
  return out
}

/** Standard output of a program that reads `input`. */
function output(program: string, words: readonly string[], input: string): string {
  const { status, stdout, stderr } = spawnSync(program, words, { input, encoding: 'utf8', timeout: 30_000 })
  assert.equal(`${status} ${stderr}`, '0 ')
  return stdout
}

const without = (program: string, word = '--version'): { readonly skip: string | false } => ({
  skip: spawnSync(program, [word]).status === 0 ? false : `${program} is not installed`
})

/** What bash offers behind these words; each is one of COMP_WORDS, "=" among them. */
const offeredByBash = (script: string, name: string, ...words: readonly string[]): readonly string[] =>
  output(
    'bash',
    ['--norc', '-s', '--', name, ...words],
    `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _${name}; printf '%s\\n' "\${COMPREPLY[@]}"`
  )
    .split('\n')
    .filter((word) => word !== '')

test('bash completes commands, their words and flags, wherever flags stand', async () => {
  const script = await printed('completion', 'bash')
  const offered = (...words: readonly string[]) => offeredByBash(script, 'weftctl', ...words)
  assert.deepEqual(offered('n'), ['nodes'])
  assert.deepEqual(offered(''), [
    ...['status', 'nodes', 'peers', 'pods', 'diff', 'changes', 'why', 'check', 'page', 'migrate', 'completion', 'man']
  ])
  assert.deepEqual(offered('why', ''), ['pod', 'node', 'address'])
  assert.deepEqual(offered('why', 'pod', 'x', ''), ['to'])
  assert.deepEqual(offered('why', 'pod', 'x', 'to', 'n'), ['node'])
  assert.deepEqual(offered('--socket', '/x', 'why', 'p'), ['pod'])
  assert.deepEqual(offered('--socket', '=', '/x', '-json', 'why', 'n'), ['node'])
  assert.deepEqual(offered('completion', 'z'), ['zsh'])
  assert.deepEqual(offered('--ti'), ['--timeout='])
  assert.deepEqual(offered('--timeout', ''), [])
  assert.deepEqual(offered('--socket', '/etc/passw').includes('/etc/passwd'), true)
})

test('bash offers for why what weftctl lists', async () => {
  const listed = `weftctl() { case $1 in pods) printf 'POD  C  I  N\\nshop/web-1  c1  eth0  cbr0\\n-  c2  eth0  cbr0\\n' ;; esac; }`
  const script = `${listed}\n${await printed('completion', 'bash')}`
  assert.deepEqual(offeredByBash(script, 'weftctl', 'why', 'pod', 'sh'), ['shop/web-1'])
  assert.deepEqual(offeredByBash(script, 'weftctl', 'why', 'address', 'x', 'to', 'pod', 'sh'), ['shop/web-1'])
  assert.deepEqual(offeredByBash(script, 'weftctl', 'why', 'address', 'sh'), [])
})

test("bash completes weftd's flags and their values from the table of options", async () => {
  const script = await printed('completion', 'bash', 'weftd')
  const flags = offeredByBash(script, 'weftd', '--').map((flag) => flag.replace(/^--|=$/g, ''))
  assert.deepEqual(flags, Object.keys(FLAGS))
  assert.deepEqual(offeredByBash(script, 'weftd', '--store', '=', 'e'), ['etcd', 'embedded'])
  assert.deepEqual(offeredByBash(script, 'weftd', '--pod-mode', 'r'), ['routed'])
})

test('zsh takes the script and knows whose completion it is', without('zsh'), async () => {
  for (const [program, names] of [
    ['weftctl', ['weftctl', 'kubectl-weft']],
    ['weftd', ['weftd']]
  ] as const) {
    const script = await printed('completion', 'zsh', program)
    const asked = names.map((name) => `$_comps[${name}]`).join(' ')
    const loaded = `autoload -U compinit; compinit -u -D; source /dev/stdin <<'END'\n${script}\nEND\nprint ${asked}`
    assert.equal(output('zsh', ['-f'], loaded), `${names.map(() => `_${program}`).join(' ')}\n`)
  }
})

test('fish completes commands, their words, and the other name', without('fish'), async () => {
  const script = await printed('completion', 'fish')
  const offered = (line: string) =>
    output('fish', ['--no-config', '-c', `${script}\ncomplete -C "${line}"`], '')
      .split('\n')
      .filter((text) => text !== '')
      .map((text) => text.split('\t')[0])
  assert.deepEqual(offered('weftctl why ').sort(), ['address', 'node', 'pod'])
  assert.deepEqual(offered('kubectl-weft --json man w').sort(), ['weftctl', 'weftd'])
  assert.deepEqual(offered('weftctl --ver'), ['--version'])
})

test(
  'the manual pages are what groff takes without a warning, and name every flag and command',
  without('groff'),
  async () => {
    for (const program of ['weftctl', 'weftd']) {
      const page = await printed('man', program)
      const { status, stdout, stderr } = spawnSync('groff', ['-man', '-Tascii', '-ww', '-P-cbou', '-rLL=200n'], {
        input: page,
        encoding: 'utf8'
      })
      assert.deepEqual([status, stderr], [0, ''])
      const words =
        program === 'weftd'
          ? Object.keys(FLAGS).map((flag) => `--${flag}`)
          : ['why pod|node|address NAME [to pod|node|address NAME]', '--json']
      const missing = [...words, 'EXIT STATUS', '/run/weft/weftd.sock'].filter((word) => !stdout.includes(word))
      assert.deepEqual(missing, [])
      assert.match(stdout, /Weft 1\.2\.3/)
    }
  }
)

test('words and flags may stand in any order, and a flag takes its value along', () => {
  const flags = ['socket', 'json'].map((name) => [name, { reader: { placeholder: name === 'json' ? '' : 'FILE' } }])
  const split = (...words: readonly string[]) => splitWords(Object.fromEntries(flags), words)
  assert.deepEqual(split('--socket', '/x', 'why', '-json', 'pod', '--socket=/y', 'a'), {
    flags: ['--socket', '/x', '-json', '--socket=/y'],
    others: ['why', 'pod', 'a']
  })
  assert.deepEqual(split('--nonsense', 'why'), { flags: ['--nonsense'], others: ['why'] })
  assert.deepEqual(split('why', '--', '--pod'), { flags: [], others: ['why', '--pod'] })
  assert.deepEqual(split('why', '--socket'), { flags: ['--socket'], others: ['why'] })
})
