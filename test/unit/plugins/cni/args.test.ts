// CNI_ARGS (cni.md 1.5): pairs, unknown keys, IgnoreUnknown.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { test } from 'node:test'
import { parseArgs } from '../../../../plugins/cni/args.ts'

const entriesOf = (written: string) => Object.fromEntries(parseArgs(written, ['IP', 'MAC']))

test('pairs are split at semicolons and one equals sign', () => {
  deepEqual(entriesOf(''), {})
  deepEqual(entriesOf('IP=10.0.0.5;MAC='), { IP: '10.0.0.5', MAC: '' })
})

for (const written of ['IP', 'IP=a=b', 'IP=a;', ';', 'IgnoreUnknown=1;x']) {
  test(`the malformed ${JSON.stringify(written)} is error 4, IgnoreUnknown or not`, () => {
    throws(() => entriesOf(written), { name: 'CniError', code: 4, message: /CNI_ARGS: invalid pair/ })
  })
}

test('unknown keys are an error that names them, unless they are to be ignored', () => {
  throws(() => entriesOf('FOO=1;ip=2'), { code: 4, message: /unknown key "FOO", "ip"/ })
  throws(() => entriesOf('IgnoreUnknown=False;FOO=1'), { code: 4 })
  for (const yes of ['1', 'true', 'TRUE']) equal(entriesOf(`FOO=1;IgnoreUnknown=${yes}`).FOO, '1')
})

test('IgnoreUnknown has four values', () => {
  throws(() => entriesOf('IgnoreUnknown=yes'), { code: 4, message: /IgnoreUnknown=yes/ })
})
