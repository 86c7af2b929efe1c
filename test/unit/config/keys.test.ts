// The key readers that every backend uses: letter case, defaults, ranges, and errors that name path, value and rule.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { booleanKey, findKey, integerKey, textKey } from '../../../daemon/config/keys.ts'

const vni = { min: 1, max: 16_777_215, default: 1 }

test('a key is found in any letter case, and the last of several spellings counts, as in Go', () => {
  assert.equal(integerKey({ vni: 7 }, 'VNI', vni), 7)
  assert.equal(integerKey({ VNI: 7, Vni: 8 }, 'VNI', vni), 8)
  assert.deepEqual(findKey({ vNi: 7 }, 'VNI'), { value: 7, path: 'Backend.vNi' })
})

test('an absent key and null give the default', () => {
  assert.equal(integerKey({}, 'VNI', vni), 1)
  assert.equal(integerKey({ VNI: null }, 'VNI', vni), 1)
  assert.equal(booleanKey({ gbp: null }, 'GBP', true), true)
  assert.equal(textKey({}, 'Mode', { default: 'separate' }), 'separate')
})

for (const { what, run, message } of [
  {
    what: 'a number out of range',
    run: () => integerKey({ vni: 16_777_216 }, 'VNI', vni),
    message: 'Backend.vni is 16777216; it must be a whole number from 1 to 16777215'
  },
  { what: 'a fraction', run: () => integerKey({ VNI: 1.5 }, 'VNI', vni), message: /VNI is 1\.5; .* whole number/ },
  {
    what: 'a number in quotes',
    run: () => integerKey({ VNI: '1' }, 'VNI', vni),
    message: /VNI is "1"; .* whole number .*, without quotes$/
  },
  {
    what: 'a truth value in quotes',
    run: () => booleanKey({ GBP: 'true' }, 'GBP', false),
    message: /GBP is "true"; .* without quotes/
  },
  {
    what: 'an unknown word',
    run: () => textKey({ Mode: 'fast' }, 'Mode', { allowed: ['auto', 'ipv4'], default: 'auto' }),
    message: 'Backend.Mode is "fast"; it must be one of "auto", "ipv4"'
  },
  {
    what: 'an object for a text',
    run: () => textKey({ Mode: {} }, 'Mode', { default: '' }),
    message: /Mode is \{\}; .* text/
  }
])
  test(`${what} is refused with path, value and rule`, () => {
    assert.throws(run, { name: 'WeftError', code: 'CONFIG_INVALID', message })
  })
