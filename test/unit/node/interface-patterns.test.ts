// Names and patterns by which an administrator means an interface: alternative names, and Go's syntax of patterns.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { chooseInterface, type InterfaceOptions } from '../../../daemon/node/choose-interface.ts'
import { interfacePatterns } from '../../../daemon/node/interface-patterns.ts'
import { type KernelObject, stateOf } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const { recognises } = registry(BACKENDS)
const options = (over: Partial<InterfaceOptions>): InterfaceOptions => ({
  ...{ ifaces: [], ifaceRegexes: [], publicIp: {}, families: [4], recognises },
  ...over
})
const link = (name: string, altNames?: readonly string[]): KernelObject => ({
  ...{ kind: 'link', name, up: true, mtu: 1500, form: { type: 'other', of: '' } },
  ...(altNames && { altNames })
})
const host = stateOf([
  link('lo'),
  link('eth0', ['enp0s3', 'ens3']),
  { kind: 'address', device: 'eth0', prefix: parsePrefix('192.0.2.10/24') ?? assert.fail() }
])

test('an alternative name is a name: by --iface, and for a pattern', () => {
  assert.equal(chooseInterface(host, options({ ifaces: ['ens3'] })).device, 'eth0')
  assert.equal(chooseInterface(host, options({ ifaceRegexes: ['^enp'] })).device, 'eth0')
})

test('patterns are in the syntax of Go, and a wrong one is refused with its value before anything starts', async () => {
  const compile = await interfacePatterns(['(?i)^ETH[[:digit:]]$'], '--iface-regex')
  assert.ok(typeof compile === 'function')
  assert.equal(chooseInterface(host, options({ ifaceRegexes: ['(?i)^ETH[[:digit:]]$'], compile })).device, 'eth0')
  const wrong = await interfacePatterns(['^eth', '('], 'WEFTD_IFACE_REGEX')
  assert.ok(typeof wrong !== 'function')
  assert.deepEqual(
    wrong.map(({ code, message }) => [code, message]),
    [
      [
        'OPTION_INVALID',
        'WEFTD_IFACE_REGEX is "(", but must be a regular expression in the syntax of Go (RE2): error parsing regexp: missing closing ): `(`'
      ]
    ]
  )
})

test('an error names what there is to select from, with addresses, and never that there is none', () => {
  const nothing = options({ recognises: () => 'own' })
  assert.throws(() => chooseInterface(host, nothing), {
    code: 'NO_INTERFACE',
    message: /no default route; this host has eth0 \(192\.0\.2\.10\)$/
  })
  const many = stateOf([link('lo'), ...Array.from({ length: 25 }, (_, at) => link(`eth${at}`))])
  assert.throws(() => chooseInterface(many, options({})), { message: /eth19 \(no address\) and 5 more$/ })
  assert.throws(() => chooseInterface(stateOf([link('lo')]), options({})), { message: /no interface but lo$/ })
})
