// Go's flag rules, precedence of command line and environment, and errors that name flag, value and rule.
import assert from 'node:assert/strict'
import test from 'node:test'
import { nearest } from '../../../daemon/base/nearest.ts'
import {
  commaList,
  parseFlags,
  printFlags,
  repeated,
  text,
  toggle,
  variableOf,
  whole
} from '../../../daemon/cli/flag-parser.ts'

const flags = {
  'ip-masq': { group: 'a', reader: toggle, default: 'false', help: 'masquerade' },
  port: { group: 'a', reader: whole('PORT', 0, 65535), default: '0', help: 'a port' },
  iface: { group: 'b', reader: repeated(text('NAME')), help: 'a link' },
  hosts: { group: 'b', reader: commaList(text('HOST')), default: 'x', help: 'hosts' },
  key: { group: 'b', reader: text('KEY', 'made of letters', /^[a-z]+$/), secret: true, help: 'a secret' }
} as const

function values(argv: readonly string[], env: Record<string, string> = {}) {
  const parsed = parseFlags(flags, ['WEFTD_', 'FLANNELD_'], argv, env)
  assert.ok('values' in parsed, 'errors' in parsed ? parsed.errors.map(String).join('\n') : '')
  return parsed.values
}

function errors(argv: readonly string[], env: Record<string, string> = {}): readonly string[] {
  const parsed = parseFlags(flags, ['WEFTD_', 'FLANNELD_'], argv, env)
  assert.ok('errors' in parsed, 'no error')
  return parsed.errors.map((error) => error.message)
}

for (const argv of [['--port=8'], ['-port=8'], ['--port', '8'], ['-port', '8'], ['--port', '7', '--port', '8']]) {
  test(`${argv.join(' ')} sets the port to 8`, () => assert.equal(values(argv).port, 8))
}

for (const [word, wanted] of [
  ['--ip-masq', true],
  ['-ip-masq', true],
  ['--ip-masq=T', true],
  ['--ip-masq=1', true],
  ['--ip-masq=false', false],
  ['-ip-masq=0', false]
] as const) {
  test(`${word} is ${wanted}`, () => assert.equal(values([word]).ipMasq, wanted))
}

test('a boolean never takes the next word', () => {
  assert.deepEqual(errors(['--ip-masq', 'false']), ['the argument "false" is not a flag'])
})

test('a repeatable flag keeps every occurrence in order, another the last', () => {
  assert.deepEqual(values(['--iface=eth1', '-iface', 'eth0']).iface, ['eth1', 'eth0'])
  assert.deepEqual(values([]).iface, [])
  assert.deepEqual(values(['--hosts=a,b', '--hosts=c, d']).hosts, ['c', 'd'])
})

test('the command line wins over our variables, those over flanneld’s, those over the default', () => {
  const env = { WEFTD_PORT: '2', FLANNELD_PORT: '3' }
  assert.equal(values(['--port=1'], env).port, 1)
  assert.equal(values([], env).port, 2)
  assert.equal(values([], { ...env, WEFTD_PORT: '' }).port, 3)
  assert.equal(values([], {}).port, 0)
})

test('a wrong value is named with its flag or variable and the rule', () => {
  assert.deepEqual(errors(['--port=65536']), ['--port is "65536", but must be a whole number from 0 to 65535'])
  assert.deepEqual(errors([], { FLANNELD_PORT: 'x' }), [
    'FLANNELD_PORT is "x", but must be a whole number from 0 to 65535'
  ])
  assert.deepEqual(errors(['--ip-masq=yes']), ['--ip-masq is "yes", but must be true or false'])
  assert.deepEqual(errors(['--hosts=a,']), [
    '--hosts is "a,", but must be a comma-separated list of items, each a non-empty string'
  ])
  assert.deepEqual(errors(['--port']), ['--port has no value; it must be a whole number from 0 to 65535'])
})

test('a secret is not printed when it is wrong', () => {
  const [message] = errors(['--key=Hunter2'])
  assert.equal(message, '--key is (not shown), but must be made of letters')
})

test('an unknown flag is answered with the nearest one, and all faults come at once', () => {
  assert.deepEqual(errors(['--ip-mask', '--prot', '8', '--zzzzzzzz=1', '--port=x']), [
    'there is no flag --ip-mask; the nearest is --ip-masq',
    'there is no flag --prot; the nearest is --port',
    'there is no flag --zzzzzzzz',
    '--port is "x", but must be a whole number from 0 to 65535'
  ])
})

test('names of Object’s own are no flags', () => {
  assert.deepEqual(errors(['--constructor=1']), ['there is no flag --constructor'])
})

test('a variable of ours that names no flag is reported, but not the ones of a Kubernetes service', () => {
  const parsed = parseFlags(flags, ['WEFTD_', 'FLANNELD_'], [], {
    WEFTD_PROT: '1',
    WEFTD_SERVICE_HOST: '10.0.0.1',
    WEFTD_PORT_80_TCP_ADDR: '10.0.0.1',
    FLANNELD_NEW: '1',
    PATH: '/bin'
  })
  assert.ok('unknownVariables' in parsed)
  assert.deepEqual(parsed.unknownVariables, [
    { name: 'WEFTD_PROT', text: 'the environment variable WEFTD_PROT names no flag; the nearest is WEFTD_PORT' }
  ])
})

test('nearest gives up on words that have nothing in common', () => {
  assert.equal(nearest('etcd-endpoint', ['etcd-endpoints', 'etcd-prefix']), 'etcd-endpoints')
  assert.equal(nearest('abcdef', ['uvwxyz']), undefined)
  assert.equal(nearest('x', []), undefined)
})

test('a variable is the name in upper case', () => {
  assert.equal(variableOf('WEFTD_', 'etcd-endpoints'), 'WEFTD_ETCD_ENDPOINTS')
})

test('help keeps to the width and groups the flags', () => {
  assert.equal(
    printFlags(flags, { b: 'Links', a: 'Rest' }, 24),
    `Links:
  --iface NAME  (repeatable)
      a link
  --hosts HOST[,…]
      hosts (default x)
  --key KEY
      a secret

Rest:
  --ip-masq
      masquerade
  --port PORT
      a port (default 0)`
  )
})
