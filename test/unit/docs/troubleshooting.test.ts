// Commands of docs/troubleshooting.md that can be tried without a node.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const text = readFileSync(new URL('../../../docs/troubleshooting.md', import.meta.url), 'utf8')
const hasJq = spawnSync('jq', ['--version']).error === undefined

test('the filter for problems in the log passes over lines that are no JSON', {
  skip: hasJq ? false : 'needs jq'
}, () => {
  const [, option = '', filter = ''] = /jq (-\w+) '([^']+)'/.exec(text) ?? assert.fail('no jq')
  const lines = [
    'Started weftd.service - Weft, a pod network across hosts.',
    '{"level":30,"msg":"weftd starts"}',
    '{"level":40,"msg":"a problem"}',
    '(node:17) Warning: something',
    '17',
    '{"level":50,"msg":"an error"}',
    'weftd.service: Deactivated successfully.'
  ]
  const { stdout, stderr, status } = spawnSync('jq', [option, filter], { input: lines.join('\n'), encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  assert.deepEqual(stdout.trimEnd().split('\n'), [lines[2], lines[5]])
})
