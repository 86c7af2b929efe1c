// Types of flannel that Weft does not have are refused by name, with the reason, what Weft knows, and what to use.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { REFUSED_TYPES } from '../../../daemon/backend/refused-types.ts'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'

const backends = registry(BACKENDS)

const refusal = (type: string): WeftError => {
  try {
    backends.configure(type, { Type: type })
  } catch (error) {
    assert.ok(error instanceof WeftError)
    return error
  }
  return assert.fail(`${type} was accepted`)
}

test('a type that Weft will not have is refused by name with the reason, in any letter case', () => {
  assert.deepEqual(Object.keys(REFUSED_TYPES).sort(), ['ali-vpc', 'aws-vpc', 'gce', 'ipsec', 'tencent-vpc'])
  for (const [name, { why, instead }] of Object.entries(REFUSED_TYPES)) {
    for (const type of [name, name.toUpperCase()]) {
      const { code, message, cure } = refusal(type)
      assert.equal(code, 'CONFIG_INVALID')
      const known = BACKENDS.map((backend) => backend.type).join(', ')
      assert.equal(message, `Backend.Type is "${type}", which Weft does not have: ${why}; this version knows ${known}`)
      assert.equal(cure, instead)
    }
    assert.equal(
      BACKENDS.some(({ type }) => type === name),
      false,
      name
    )
  }
})

test('a type that nobody knows is refused with the known ones', () => {
  const { message, cure } = refusal('vxlon')
  assert.match(message, /^Backend\.Type is "vxlon"; this version knows vxlan, /)
  assert.equal(cure, 'set Backend.Type to one of these')
})
