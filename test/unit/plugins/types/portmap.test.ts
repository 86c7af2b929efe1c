// The keys of portmap: which ports are asked for, whose packets are translated, and the error that each wrong value
// gets.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parsePrefix } from '../../../../ipam/address.ts'
import type { Existing } from '../../../../plugins/attachment.ts'
import { portmap } from '../../../../plugins/types/portmap.ts'
import { addCall, delCall } from '../calls.ts'

const of = (configuration: object, args = '') => portmap.attachment(addCall('portmap', configuration, { args }))
const ways = (configuration: object) => (of(configuration).interface as Existing).ports?.translates
const web = { HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }

describe('portmap', () => {
  test('asks for the ports that the runtime names, in whatever letter case', () => {
    deepEqual(of({ RuntimeConfig: { PortMappings: [web, { ContainerPort: 81, Protocol: 'tcp' }] } }).hostPorts, [
      { protocol: 'tcp', hostPort: 8080, containerPort: 80 }
    ])
    equal(of({}).hostPorts, undefined)
    equal(of({ runtimeConfig: null }).hostPorts, undefined)
  })

  test('translates what would not come back otherwise, everything, or nothing', () => {
    deepEqual([{}, { snat: true }, { masqAll: true }, { snat: false }, { snat: false, masqAll: true }].map(ways), [
      'own',
      'own',
      'all',
      'nothing',
      'nothing'
    ])
  })

  test('leads a port to the container only under the conditions of its family', () => {
    const { ports } = of({ conditionsV4: ['!', '-d', '192.0.2.0/24'] }).interface as Existing
    deepEqual(ports, {
      translates: 'own',
      conditions: { 4: [{ kind: 'destination', prefixes: [parsePrefix('192.0.2.0/24')], not: true }] }
    })
  })

  test('takes the keys that say by which firewall and mark the reference does it', () => {
    equal(ways({ backend: 'iptables', markMasqBit: 13, conditionsV4: [], conditionsV6: null }), 'own')
    equal(ways({ backend: 'nftables', externalSetMarkChain: 'KUBE-MARK-MASQ' }), 'own')
  })

  for (const [configuration, code, message] of [
    [{ backend: 'ipfw' }, 7, /backend: "ipfw"/],
    [{ markMasqBit: 32 }, 7, /markMasqBit: 32/],
    [{ markMasqBit: 3, externalSetMarkChain: 'X' }, 7, /markMasqBit: 3/],
    [{ snat: 'no' }, 7, /snat: "no"/],
    [{ conditionsV4: ['-m', 'mac', '--mac-source', '0a:00:00:00:00:01'] }, 7, /conditionsV4\[0\]: "-m"/],
    [{ conditionsV6: ['-d', '10.0.0.1'] }, 7, /conditionsV6\[1\]: "10\.0\.0\.1"/],
    [{ runtimeConfig: { portMappings: [{ ...web, HostPort: 0 }] } }, 7, /portMappings\[0\]\.hostPort: 0/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error ${code}`, () => throws(() => of(configuration), { code, message }))
  }

  test('knows the pod by CNI_ARGS, of which a malformed one does not stop it', () => {
    equal(of({}, 'K8S_POD_NAMESPACE=lab;K8S_POD_NAME=web').pod?.name, 'web')
    equal(of({}, 'nonsense').pod, undefined)
  })

  test('DEL is served whatever became of the configuration', () => {
    const { interface: config, hostPorts } = portmap.attachment(delCall('portmap', { backend: 7, conditionsV4: ['x'] }))
    deepEqual([config, hostPorts], [{ kind: 'existing', ports: { translates: 'own' } }, undefined])
  })
})
