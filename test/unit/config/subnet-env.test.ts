// subnet.env to the byte as flannel writes it, and read with tolerance.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSubnetEnv, printSubnetEnv } from '../../../daemon/config/subnet-env.ts'
import { parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string) => parsePrefix(text)!
const PATH = '/run/flannel/subnet.env'

test('the file of a node with IPv4 is flannel’s, byte for byte', () => {
  const env = { network: { 4: prefix('10.2.0.0/16') }, subnet: { 4: prefix('10.2.5.0/24') }, mtu: 1450, ipMasq: true }
  assert.equal(
    printSubnetEnv(env),
    'FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.5.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n'
  )
})

test('both families are printed IPv4 first, and what is printed is read back', () => {
  const env = {
    network: { 4: prefix('10.2.0.0/16'), 6: prefix('fd00:2::/48') },
    subnet: { 4: prefix('10.2.5.0/24'), 6: prefix('fd00:2:0:5::/64') },
    mtu: 1430,
    ipMasq: false
  }
  const text = printSubnetEnv(env)
  assert.deepEqual(text.split('\n').slice(2, 4), [
    'FLANNEL_IPV6_NETWORK=fd00:2::/48',
    'FLANNEL_IPV6_SUBNET=fd00:2:0:5::1/64'
  ])
  assert.deepEqual(parseSubnetEnv(text, PATH), env)
})

test('order, quotes, export, comments, unknown names and missing lines do not matter', () => {
  const text =
    '# by hand\r\nexport FLANNEL_MTU="1400"\nOTHER=x\n  FLANNEL_SUBNET=10.2.5.1/24  \nFLANNEL_NETWORK=10.2.0.0/16,10.3.0.0/16\nFLANNEL_IPMASQ=\n'
  assert.deepEqual(parseSubnetEnv(text, PATH), {
    network: { 4: prefix('10.2.0.0/16') },
    subnet: { 4: prefix('10.2.5.0/24') },
    mtu: 1400
  })
  assert.deepEqual(parseSubnetEnv('', PATH), { network: {}, subnet: {} })
})

for (const line of [
  'FLANNEL_SUBNET=10.2.5.1',
  'FLANNEL_SUBNET=fd00::1/64',
  'FLANNEL_IPV6_NETWORK=10.2.0.0/16',
  'FLANNEL_MTU=big',
  'FLANNEL_IPMASQ=maybe'
])
  test(`${line} is refused with its name, value and file`, () => {
    const [name, value] = line.split('=')
    assert.throws(
      () => parseSubnetEnv(line, PATH),
      (error: Error & { code: string }) => {
        assert.equal(error.code, 'SUBNET_ENV_INVALID')
        return error.message.startsWith(`${name} is "${value}" in ${PATH}; it must be `)
      }
    )
  })
