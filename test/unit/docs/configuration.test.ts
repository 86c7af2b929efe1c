// docs/configuration.md against the code that reads the configuration: every key documented, every documented key read.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { netConfSchema } from '../../../daemon/config/net-conf.schema.ts'
import type { Json } from '../../../daemon/config/net-conf.ts'
import { CniError, cniCode } from '../../../plugins/cni/error.ts'
import { forwardingPluginNamed, pluginNamed, pluginTypes } from '../../../plugins/types/registry.ts'
import { NETWORK } from '../../../scripts/docs/configuration.ts'
import { PLUGIN_KEYS } from '../../../scripts/docs/plugin-keys.ts'
import { addCall } from '../plugins/calls.ts'

const backends = registry(BACKENDS)
const root = fileURLToPath(new URL('../../../', import.meta.url))
const read = (pattern: string) => globSync(pattern, { cwd: root }).map((path) => readFileSync(join(root, path), 'utf8'))

test('the keys of the network configuration are those of its schema', () => {
  assert.deepEqual(Object.keys(NETWORK), Object.keys(netConfSchema.properties))
})

describe("a backend's keys", () => {
  test('are all documented', () => {
    const inSource = read('daemon/backend/*.ts').flatMap((source) => {
      const type = /^ {2}type: '([^']+)'/m.exec(source)?.[1]
      const keys = [...source.matchAll(/(?:integerKey|booleanKey|textKey|commandKey)\(\s*keys,\s*'([^']+)'/g)].map(
        ([, key]) => key
      )
      return type === undefined ? [] : [[type, keys] as const]
    })
    assert.deepEqual(BACKENDS.map(({ type, keys }) => [type, Object.keys(keys)]).sort(), inSource.sort())
  })

  for (const { type, keys } of BACKENDS) {
    for (const [key, { rule }] of Object.entries(keys)) {
      test(`${key} of ${type} is read: a wrong value is refused by its name`, () => {
        const refused = (wrong: Json) =>
          assert.throws(
            () => backends.configure(type, { Type: type, [key]: wrong }),
            (error) => error instanceof WeftError && error.code === 'CONFIG_INVALID' && error.message.includes(key),
            JSON.stringify(wrong)
          )
        refused({ no: 'such value' })
        const [, least, most] = /^(\d+) to (\d+)$/.exec(rule) ?? []
        if (least === undefined || most === undefined) return
        refused(Number(least) - 1)
        refused(Number(most) + 1)
        for (const right of [least, most]) backends.configure(type, { Type: type, [key]: Number(right) })
      })
    }
  }
})

/** `a.b[].c` with `leaf` in its place: `{"a":{"b":[{"c":…}]}}`. */
function nested(path: string, leaf: unknown): Record<string, unknown> {
  const [key = '', ...rest] = path.split('.')
  const inner = rest.length === 0 ? leaf : nested(rest.join('.'), leaf)
  const lists = key.match(/\[\]/g)?.length ?? 0
  let value = inner
  for (let n = 0; n < lists; n++) value = [value]
  return { [key.replaceAll('[]', '')]: value }
}

function merged(a: Record<string, unknown>, b: Record<string, unknown>): Record<string, unknown> {
  const out = { ...a }
  for (const [key, value] of Object.entries(b)) {
    const before = out[key]
    const areObjects = [before, value].every(
      (each) => typeof each === 'object' && each !== null && !Array.isArray(each)
    )
    out[key] = areObjects ? merged(before as Record<string, unknown>, value as Record<string, unknown>) : value
  }
  return out
}

/**
 * What stands beside a key, so that it is looked at: other members of its entry, and what its plugin can't do without.
 */
const BESIDE: Readonly<Record<string, Record<string, unknown>>> = {
  macvlan: { master: 'eth1' },
  ptp: { ipam: { type: 'static', addresses: [{ address: '10.9.0.5/24' }] } },
  'host-local': { ipam: { subnet: '10.9.0.0/24' } },
  static: { ipam: {} }
}
/** A list replaces the one beside it, so an entry's other members come along. */
const ENTRY: Readonly<Record<string, Record<string, unknown>>> = {
  'ipam.ranges[][]': { subnet: '10.9.0.0/24' },
  'ipam.routes[]': { dst: '10.8.0.0/16' },
  'ipam.addresses[]': { address: '10.9.0.5/24' },
  'runtimeConfig.portMappings[]': { hostPort: 80, containerPort: 80, protocol: 'tcp' }
}

/** Makes what the plugin makes of an ADD with this configuration. */
function asked(type: string, configuration: Record<string, unknown>): void {
  const call = addCall(type, configuration)
  const forwarding = forwardingPluginNamed(type)
  if (forwarding === undefined) pluginNamed(type)?.attachment(call)
  else {
    forwarding.files(call)
    forwarding.forward(call, { network: {}, subnet: {} })
  }
}

/** The error that a plugin's configuration with this key so set meets. */
function refusal(type: string, key: string, set: unknown): CniError | undefined {
  const name = key.slice(key.lastIndexOf('.') + 1)
  const entry = key.slice(0, key.lastIndexOf('.'))
  const written = ENTRY[entry] === undefined ? nested(key, set) : nested(entry, { ...ENTRY[entry], [name]: set })
  try {
    asked(type, { cniVersion: '1.0.0', name: 'n', type, ...merged(BESIDE[type] ?? {}, written) })
    return undefined
  } catch (error) {
    if (error instanceof CniError) return error
    throw error
  }
}

/** A value that is right in no place. */
const wrongFor = (value: string): unknown =>
  /^(whole number|0 to|list|object|true|bits)/.test(value) ? 'not this' : { not: 'this' }

describe("a plugin's keys", () => {
  test('are documented for every plugin', () =>
    assert.deepEqual(Object.keys(PLUGIN_KEYS).sort(), pluginTypes.toSorted()))

  for (const [type, keys] of Object.entries(PLUGIN_KEYS)) {
    for (const [key, value, means] of keys) {
      const path = key.replaceAll('[]', '[0]')
      const refusedAs = (set: unknown) => refusal(type, key, set)

      test(`${key} of ${type} is read: a wrong value is refused by its path`, () => {
        const wrong = wrongFor(value)
        assert.ok(refusedAs(wrong)?.message.includes(path), `${JSON.stringify(wrong)}: ${refusedAs(wrong)}`)
        const [, least, most] = /^(\d+) to (\d+)$/.exec(value) ?? []
        if (most !== undefined) assert.ok(refusedAs(Number(most) + 1)?.message.includes(path), `${Number(most) + 1}`)
        if (Number(least) > 0) assert.ok(refusedAs(Number(least) - 1)?.message.includes(path), `${Number(least) - 1}`)
      })

      const asking = value === 'list' ? [{}] : value === 'true, false' ? true : 1
      if (/^only (0|false|an empty)/.test(means))
        test(`${key} of ${type} is refused as not supported when it asks for something`, () =>
          assert.equal(refusedAs(asking)?.code, cniCode.unsupportedField))
      else if (value === 'true, false')
        test(`${key} of ${type} may be true`, () => assert.equal(refusedAs(true), undefined))
    }
  }

  test('are all documented: every key that plugins read by name is in one of the tables', () => {
    const documented = new Set(
      Object.values(PLUGIN_KEYS).flatMap((keys) =>
        keys.flatMap(([key]) => key.split('.').map((part) => part.replaceAll('[]', '')))
      )
    )
    const lookedUp = read('plugins/{types,keys}/*.ts').flatMap((source) =>
      [...source.matchAll(/\b(?:member|descend)\(\s*(?:\w+|\w+\([^()]*\)),\s*((?:'[^']+'(?:,\s*)?)+)\)/g)].flatMap(
        ([, names = '']) => [...names.matchAll(/'([^']+)'/g)].map(([, name = '']) => name)
      )
    )
    assert.ok(lookedUp.length > 30, lookedUp.join())
    /** Of the protocol, of messages on the socket, and of the specification. */
    const others = new Set([
      'ctl',
      'run',
      'exit',
      'stdout',
      'stderr',
      'v',
      'plugin',
      'env',
      'stdin',
      'deadlineMs',
      'did',
      'args',
      'id',
      'reason',
      'type',
      'path',
      'error',
      'answer',
      'cniVersion',
      'name',
      'prevResult'
    ])
    assert.deepEqual([...new Set(lookedUp.filter((name) => !documented.has(name) && !others.has(name)))], [])
  })
})
