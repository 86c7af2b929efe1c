// The capability portMappings: what becomes of each entry, and the error that each wrong value gets.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatIp } from '../../../../ipam/address.ts'
import { FieldError } from '../../../../plugins/cni/field.ts'
import { portMappings } from '../../../../plugins/keys/port-mappings.ts'

const read = (value: unknown) =>
  portMappings({ path: 'runtimeConfig.portMappings', value }).map(
    ({ protocol, hostPort, containerPort, hostIp }) =>
      `${hostIp === undefined ? '' : `${formatIp(hostIp)} `}${protocol} ${hostPort}>${containerPort}`
  )
const web = { hostPort: 8080, containerPort: 80, protocol: 'tcp' }

test('entries become mappings, with keys in any case and protocols too', () => {
  const containerd = { HostPort: 53, ContainerPort: 5353, Protocol: 'UDP', HostIP: '' }
  assert.deepEqual(read([web, containerd, { ...web, hostPort: 1, protocol: 'sctp', hostIP: 'fd00::1' }]), [
    'tcp 8080>80',
    'udp 53>5353',
    'fd00::1 sctp 1>80'
  ])
})

test('nothing is asked for by an absent list, an empty one, and entries without a host port', () => {
  for (const nothing of [undefined, [], [{ containerPort: 80, protocol: 'tcp' }], [{ hostPort: null }]])
    assert.deepEqual(read(nothing), [])
})

test('an address that stands for all of a family is kept as such', () => {
  assert.deepEqual(
    read([
      { ...web, hostIP: '0.0.0.0' },
      { ...web, hostIP: '::' }
    ]),
    ['0.0.0.0 tcp 8080>80', ':: tcp 8080>80']
  )
})

test('the same entry twice is one; two that contradict each other are an error', () => {
  assert.deepEqual(read([web, web, { ...web, protocol: 'udp' }]), ['tcp 8080>80', 'udp 8080>80'])
  assert.throws(
    () => read([web, { ...web, containerPort: 81 }]),
    /portMappings\[1\]\.hostPort: 8080.*leads tcp 8080 to 80/
  )
})

for (const [entry, path, value, rule] of [
  [{ ...web, hostPort: 0 }, 'hostPort', 0, /from 1 to 65535/],
  [{ ...web, hostPort: -1 }, 'hostPort', -1, /from 1 to 65535/],
  [{ ...web, hostPort: 65_536 }, 'hostPort', 65_536, /from 1 to 65535/],
  [{ ...web, hostPort: 80.5 }, 'hostPort', 80.5, /whole number/],
  [{ ...web, hostPort: '80' }, 'hostPort', '80', /whole number/],
  [{ ...web, containerPort: 0 }, 'containerPort', 0, /from 1 to 65535/],
  [{ hostPort: 80, protocol: 'tcp' }, 'containerPort', undefined, /a port/],
  [{ ...web, protocol: 'ICMP' }, 'protocol', 'ICMP', /tcp, udp, sctp/],
  [{ ...web, protocol: '' }, 'protocol', '', /tcp, udp, sctp/],
  [{ hostPort: 80, containerPort: 80 }, 'protocol', undefined, /tcp, udp, sctp/],
  [{ ...web, protocol: 6 }, 'protocol', 6, /string/],
  [{ ...web, hostIP: '10.0.0.300' }, 'hostIP', '10.0.0.300', /address/]
] as const) {
  test(`${JSON.stringify(entry)} is refused by path, value and rule`, () => {
    assert.throws(
      () => read([web, entry]),
      (error) => {
        assert.ok(error instanceof FieldError)
        assert.equal(error.path, `runtimeConfig.portMappings[1].${path}`)
        assert.equal(error.value, value)
        assert.match(error.rule, rule)
        return true
      }
    )
  })
}

test('an entry that is no object is refused', () => {
  assert.throws(() => read([80]), /portMappings\[0\]/)
  assert.throws(() => read({}), /portMappings: \{\}.*list/)
})
