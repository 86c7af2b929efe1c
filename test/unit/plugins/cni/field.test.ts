// Reading members of foreign JSON: case, absence, and errors that name path, value and rule.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { test } from 'node:test'
import {
  descend,
  entries,
  type Field,
  FieldError,
  flag,
  isAbsent,
  member,
  oneOf,
  shown,
  text,
  texts,
  wholeNumber
} from '../../../../plugins/cni/field.ts'

const root = (value: unknown): Field => ({ path: '', value })

test('a member is found in any capitalisation, the exact one first, else the last; null is absence', () => {
  equal(member(root({ HostPort: 80 }), 'hostPort').value, 80)
  equal(member(root({ mtu: 1, MTU: 2 }), 'mtu').value, 1)
  equal(member(root({ Address: 1, address: 2, ADDRESS: 3 }), 'address').value, 2)
  equal(member(root({ Mtu: 1, MTU: 2 }), 'mtu').value, 2)
  const many = Object.fromEntries(Array.from({ length: 200 }, (_, at) => [`k${at}`, at]))
  equal(member(root({ ...many, address: 1, Address: 2 }), 'address').value, 1)
  equal(member(root({ mtu: 1, MTU: null }), 'mtu').value, 1)
  equal(isAbsent(member(root({ mtu: null }), 'mtu')), true)
  equal(isAbsent(member(root({ mtux: 1 }), 'mtu')), true)
})

test('an absent parent has absent members, a parent of another kind is an error', () => {
  equal(isAbsent(descend(root({}), 'runtimeConfig', 'ips')), true)
  equal(isAbsent(descend(root({ runtimeConfig: null }), 'runtimeConfig', 'ips')), true)
  throws(
    () => descend(root({ runtimeConfig: [] }), 'runtimeConfig', 'ips'),
    new FieldError({ path: 'runtimeConfig', value: [] }, 'must be an object')
  )
})

test('each reader refuses other types and names path, value and rule', () => {
  const at = (value: unknown): Field => ({ path: 'a.b[2]', value })
  for (const [read, rule] of [
    [() => text(at(5)), 'a.b[2]: 5 is wrong: must be a string'],
    [() => flag(at('true')), 'a.b[2]: "true" is wrong: must be true or false'],
    [() => wholeNumber(at(1.5), 0, 9), 'a.b[2]: 1.5 is wrong: must be a whole number from 0 to 9'],
    [() => wholeNumber(at('1'), 0, 9), 'a.b[2]: "1" is wrong: must be a whole number from 0 to 9'],
    [() => wholeNumber(at(10), 0, 9), 'a.b[2]: 10 is wrong: must be a whole number from 0 to 9'],
    [() => oneOf(at('c'), ['a', 'b']), 'a.b[2]: "c" is wrong: must be one of a, b'],
    [() => entries(at({})), 'a.b[2]: {} is wrong: must be a list'],
    [() => texts(at([null])), 'a.b[2][0]: null is wrong: must be a string']
  ] as const) {
    throws(read, { name: 'FieldError', message: rule })
  }
})

test('readers give the value, and undefined for what is absent', () => {
  const absent: Field = { path: 'x', value: undefined }
  deepEqual(
    [text(absent), flag(absent), wholeNumber(absent, 0, 1), oneOf(absent, ['a'])],
    [undefined, undefined, undefined, undefined]
  )
  deepEqual([texts(absent), entries({ path: 'l', value: ['v'] })], [[], [{ path: 'l[0]', value: 'v' }]])
  deepEqual([wholeNumber(root(9), 9, 9), oneOf(root('b'), ['a', 'b']), flag(root(false))], [9, 'b', false])
})

test('a zero with a sign is zero', () => {
  equal(Object.is(wholeNumber(root(JSON.parse('-0')), 0, 9), 0), true)
})

test('long values are cut in messages', () => {
  equal(shown('x'.repeat(500)).length, 120)
})

test('many members are looked through once, however many keys are asked for', () => {
  let walks = 0
  const document = new Proxy(Object.fromEntries(Array.from({ length: 1_000 }, (_, n) => [`Key${n}`, n])), {
    ownKeys: (target) => {
      walks++
      return Reflect.ownKeys(target)
    }
  })
  const of = root(document)
  for (let n = 0; n < 1_000; n += 10) equal(member(of, `kEY${n}`).value, n)
  equal(walks, 1)
})
