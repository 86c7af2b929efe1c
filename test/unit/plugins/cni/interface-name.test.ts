// Names of links: what the kernel refuses, and what it would take for a pattern.
import { equal, match } from 'node:assert/strict'
import { test } from 'node:test'
import { brokenNameRule } from '../../../../plugins/cni/interface-name.ts'

for (const [name, rule] of [
  ['', /empty/],
  ['a'.repeat(16), /15 bytes/],
  ['ä'.repeat(8), /15 bytes/],
  ['.', /"\."/],
  ['..', /"\.\."/],
  ['a/b', /"\/"/],
  ['a:b', /":"/],
  ['a b', /white space/],
  ['a\u0085', /white space/],
  ['eth%d', /"%"/],
  ['%', /"%"/],
  ['eth0\u0000x', /zero byte/]
] as const) {
  test(`${JSON.stringify(name)} breaks the rule ${rule}`, () => match(brokenNameRule(name) ?? 'none', rule))
}

test('any other name of at most fifteen bytes is good', () => {
  for (const name of ['a', 'eth0', 'a'.repeat(15), `${'ä'.repeat(7)}b`, '...', 'eth0.1', '-', '$(x)'])
    equal(brokenNameRule(name), undefined, name)
})
