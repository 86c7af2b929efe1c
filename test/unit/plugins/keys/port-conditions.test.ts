// Conditions for host ports in both languages, and the word that each wrong one is refused by.
import { deepEqual, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatPrefix } from '../../../../ipam/address.ts'
import { FieldError } from '../../../../plugins/cni/field.ts'
import { portConditions } from '../../../../plugins/keys/port-conditions.ts'

const read = (value: unknown, family: 4 | 6 = 4) =>
  portConditions({ path: 'conditions', value }, family).map((each) =>
    [each.not ? 'not' : '', each.kind, ...(each.kind === 'device' ? [each.name] : each.prefixes.map(formatPrefix))]
      .join(' ')
      .trim()
  )

describe('conditions for host ports', () => {
  for (const [written, family, wanted] of [
    [undefined, 4, []],
    [[], 4, []],
    [['!', '-d', '192.0.2.0/24'], 4, ['not destination 192.0.2.0/24']],
    [['! -d 192.0.2.0/24'], 4, ['not destination 192.0.2.0/24']],
    [['--source', '10.0.0.1,10.1.0.0/16', '-i', 'eth+'], 4, ['source 10.0.0.1/32 10.1.0.0/16', 'device eth*']],
    [['!', '--dst', 'fc00::/7', '!', '--in-interface', 'eth0'], 6, ['not destination fc00::/7', 'not device eth0']],
    [['ip', 'saddr', '10.0.0.0/8'], 4, ['source 10.0.0.0/8']],
    [['ip6 daddr != fc00::/7', 'iifname', '"eth0"'], 6, ['not destination fc00::/7', 'device eth0']],
    [['ip', 'daddr', '==', '192.0.2.1'], 4, ['destination 192.0.2.1/32']]
  ] as const)
    test(`${JSON.stringify(written)} for IPv${family}`, () => deepEqual(read(written, family), wanted))

  for (const [written, at, value] of [
    ['-d 10.0.0.1', '', '-d 10.0.0.1'],
    [['-p', 'tcp'], '[0]', '-p'],
    [['!', '-m', 'set'], '[1]', '-m'],
    [['!'], '[0]', '!'],
    [['-d'], '[0]', '-d'],
    [['-d', '!', '10.0.0.1'], '[1]', '!'],
    [['-d', '10.0.0.0/255.0.0.0'], '[1]', '10.0.0.0/255.0.0.0'],
    [['-d', '::1'], '[1]', '::1'],
    [['!', '-s', '10.0.0.1,10.0.0.2'], '[2]', '10.0.0.1,10.0.0.2'],
    [['-i', '+'], '[1]', '+'],
    [['-i', 'a"; drop'], '[1]', 'a";'],
    [['ip', 'saddr'], '[1]', 'saddr'],
    [['ip6', 'saddr', '::1'], '[0]', 'ip6'],
    [['ip', 'protocol', 'tcp'], '[1]', 'protocol'],
    [['-s', '10.0.0.1', 'ip', 'daddr', '10.0.0.2'], '[2]', 'ip'],
    [['-s', '10.0.0.1,10.0.0.2,10.0.0.3', '-i', 'a', '-i', 'b'], '', undefined],
    [[7], '[0]', 7]
  ] as const)
    test(`${JSON.stringify(written)} is refused by ${JSON.stringify(value)}`, () =>
      throws(
        () => read(written),
        (error) =>
          error instanceof FieldError &&
          error.path === `conditions${at}` &&
          (value === undefined || error.value === value)
      ))
})
