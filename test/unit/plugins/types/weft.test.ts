// The keys of the `weft` plugin: what each means, and the error that each wrong value gets.
import { deepEqual, equal, match, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import { formatIp, formatPrefix } from '../../../../ipam/address.ts'
import { DEFAULT_BRIDGE, DEFAULT_DATA_DIR } from '../../../../plugins/attachment.ts'
import type { AddCall, DelCall } from '../../../../plugins/cni/types.ts'
import { weft } from '../../../../plugins/types/weft.ts'
import { routeText } from '../calls.ts'

const call = (configuration: object = {}, args = ''): AddCall => ({
  verb: 'ADD',
  plugin: 'weft',
  network: 'cbr0',
  version: '1.1.0',
  configuration: { name: 'cbr0', cniVersion: '1.1.0', type: 'weft', ...configuration },
  containerId: 'c1',
  ifname: 'eth0',
  netns: '/run/netns/c1',
  args,
  path: [],
  mayBeOwnNamespace: false
})
const del = (configuration: object = {}, args = ''): DelCall => {
  const { netns: _, ...rest } = call(configuration, args)
  return { ...rest, verb: 'DEL' }
}
const plain = {
  network: 'cbr0',
  containerId: 'c1',
  ifname: 'eth0',
  plugin: 'weft',
  because: 'container c1, eth0 in network cbr0',
  interface: { kind: 'veth', bridge: 'cni0', isHairpin: false, isPromiscuous: false, isDefaultGateway: true },
  ipam: { dataDir: '/var/lib/cni/networks', requested: [], ranges: [], routes: [] }
}

describe('what is asked for', () => {
  test('without keys the defaults apply, and the node decides mode and MTU', () => {
    deepEqual(weft.attachment(call()), { ...plain, sandbox: '/run/netns/c1' })
  })
  test('members nobody knows, null and empty values have no effect', () => {
    const noise = {
      capabilities: { ips: true },
      runtimeConfig: null,
      args: null,
      bridge: '',
      mtu: 0,
      x: { y: 1 },
      ipam: { type: '', subnet: '1' },
      dns: {}
    }
    deepEqual(weft.attachment(call(noise)), { ...plain, sandbox: '/run/netns/c1' })
  })
  test('the interface has the keys of the configuration, in any capitalisation', () => {
    const keys = { Mode: 'bridge', BRIDGE: 'br1', Mtu: 1400, HairpinMode: true, isDefaultGateway: false }
    deepEqual(weft.attachment(call(keys)).interface, {
      kind: 'veth',
      bridge: 'br1',
      isHairpin: true,
      isPromiscuous: false,
      isDefaultGateway: false,
      mode: 'bridge',
      mtu: 1400
    })
  })
  test('a MAC is taken from runtimeConfig, then args.cni, then CNI_ARGS', () => {
    const [a, b, c] = ['0a:00:00:00:00:01', '0a:00:00:00:00:02', '0a:00:00:00:00:03']
    const found = (configuration: object) => weft.attachment(call(configuration, `MAC=${c}`)).interface
    const macOf = (configuration: object) => JSON.parse(JSON.stringify(found(configuration))).mac
    equal(macOf({ runtimeConfig: { mac: a }, args: { cni: { mac: b } } }), a)
    equal(macOf({ args: { cni: { mac: b } } }), b)
    equal(macOf({}), c)
  })
  test('requested addresses of all sources are added up, prefix lengths play no part', () => {
    const configuration = { args: { cni: { ips: ['10.0.0.6/24'] } }, runtimeConfig: { ips: ['fd00::7'] } }
    const { ipam } = weft.attachment(call(configuration, 'IgnoreUnknown=1;FOO=1;IP=10.0.0.5/16'))
    deepEqual(ipam?.requested.map(formatIp), ['10.0.0.5', '10.0.0.6', 'fd00::7'])
  })
  test('range sets of the runtime come before those of the configuration', () => {
    const { ipam } = weft.attachment(
      call({
        runtimeConfig: {
          ipRanges: [[{ subnet: '10.3.0.0/24', rangeStart: '10.3.0.9', rangeEnd: '10.3.0.20', gateway: '10.3.0.1' }]]
        },
        ipam: { ranges: [[{ subnet: '10.1.0.0/24' }, { subnet: '10.2.0.0/24' }]] }
      })
    )
    deepEqual(
      ipam?.ranges.map((set) => set.map((range) => formatPrefix(range.subnet))),
      [['10.3.0.0/24'], ['10.1.0.0/24', '10.2.0.0/24']]
    )
    const first = ipam?.ranges[0]?.[0]
    deepEqual(
      [first?.rangeStart, first?.rangeEnd, first?.gateway].map((each) => each && formatIp(each)),
      ['10.3.0.9', '10.3.0.20', '10.3.0.1']
    )
  })
  test("bridge and data directory are flannel's where none is named: a node keeps its pods", () => {
    const { interface: config, ipam } = weft.attachment(call())
    deepEqual([config.kind === 'veth' && config.bridge, ipam?.dataDir], [DEFAULT_BRIDGE, DEFAULT_DATA_DIR])
    deepEqual([DEFAULT_BRIDGE, DEFAULT_DATA_DIR], ['cni0', '/var/lib/cni/networks'])
  })
  test('folder, routes, dns and masquerade are handed on', () => {
    const configuration = {
      ipMasq: false,
      dns: { nameservers: ['10.96.0.10'], search: ['a'] },
      ipam: { type: 'host-local', dataDir: '/run/x', routes: [{ dst: '10.0.0.0/8', gw: '10.1.0.9' }, { Dst: '::/0' }] }
    }
    const { ipam, dns, masquerade } = weft.attachment(call(configuration))
    deepEqual([ipam?.dataDir, ipam?.routes.map(routeText)], ['/run/x', ['10.0.0.0/8 via 10.1.0.9', '::/0']])
    deepEqual([dns, masquerade], [{ nameservers: ['10.96.0.10'], search: ['a'] }, false])
  })
  test('host ports and limits are handed on; other capabilities mean nothing to it', () => {
    const runtimeConfig = {
      PortMappings: [{ HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' }, { ContainerPort: 81 }],
      Bandwidth: { IngressRate: 8_000_000, IngressBurst: 800_000 },
      aliases: { cbr0: ['web'] },
      dns: { servers: ['10.0.0.1'] },
      cgroupPath: '/a',
      'io.kubernetes.cri.pod-annotations': { a: 'b' }
    }
    deepEqual(weft.attachment(call({ runtimeConfig })), {
      ...plain,
      sandbox: '/run/netns/c1',
      hostPorts: [{ protocol: 'tcp', hostPort: 8080, containerPort: 80 }],
      bandwidth: { ingress: { rateBitsPerSecond: 8_000_000, burstBits: 800_000 } }
    })
  })
  test('the pod is known from CNI_ARGS', () => {
    const args = 'K8S_POD_NAME=web-1;K8S_POD_NAMESPACE=default;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u'
    const found = weft.attachment(call({}, args))
    deepEqual(found.pod, { namespace: 'default', name: 'web-1', uid: 'u' })
    match(found.because, /^pod default\/web-1, eth0/)
  })
})

describe('values that are wrong', () => {
  for (const [configuration, path] of [
    [{ mode: 'macvlan' }, 'mode: "macvlan"'],
    [{ mtu: 67 }, 'mtu: 67'],
    [{ mtu: 65_536 }, 'mtu: 65536'],
    [{ mtu: '1500' }, 'mtu: "1500"'],
    [{ bridge: 'a/b' }, 'bridge: "a/b"'],
    [{ bridge: 'a'.repeat(16) }, `bridge: "${'a'.repeat(16)}"`],
    [{ hairpinMode: 'yes' }, 'hairpinMode: "yes"'],
    [{ hairpinMode: true, promiscMode: true }, 'promiscMode: true'],
    [{ isDefaultGateway: 1 }, 'isDefaultGateway: 1'],
    [{ ipMasq: 'true' }, 'ipMasq: "true"'],
    [{ ipam: [] }, 'ipam: []'],
    [{ ipam: { dataDir: 'x' } }, 'ipam.dataDir: "x"'],
    [{ ipam: { routes: [{ dst: '10.0.0.0' }] } }, 'ipam.routes[0].dst: "10.0.0.0"'],
    [{ ipam: { routes: [{ dst: '10.0.0.0/8', gw: 'x' }] } }, 'ipam.routes[0].gw: "x"'],
    [{ ipam: { ranges: [{}] } }, 'ipam.ranges[0]: {}'],
    [{ ipam: { ranges: [[]] } }, 'ipam.ranges[0]: []'],
    [{ ipam: { ranges: [[{ subnet: '10.0.0.0/33' }]] } }, 'ipam.ranges[0][0].subnet: "10.0.0.0/33"'],
    [{ runtimeConfig: { ips: ['10.0.0.5', '10.0.0.300'] } }, 'runtimeConfig.ips[1]: "10.0.0.300"'],
    [{ RuntimeConfig: { MAC: 'x' } }, 'runtimeConfig.mac: "x"'],
    [{ args: { cni: { mac: 5 } } }, 'args.cni.mac: 5'],
    [{ dns: { search: 'a' } }, 'dns.search: "a"'],
    [{ dns: { domain: 5 } }, 'dns.domain: 5'],
    [
      { runtimeConfig: { portMappings: [{ hostPort: 0, containerPort: 1, protocol: 'tcp' }] } },
      'runtimeConfig.portMappings[0].hostPort: 0'
    ],
    [{ runtimeConfig: { bandwidth: { egressRate: 1e6 } } }, 'runtimeConfig.bandwidth.egressRate: 1000000'],
    [{ ingressBurst: 1e6 }, 'ingressBurst: 1000000']
  ] as const) {
    test(`${JSON.stringify(configuration)} is error 7 with path, value and rule`, () => {
      throws(
        () => weft.attachment(call(configuration)),
        (error: { code: number; message: string; details: string }) => {
          equal(error.code, 7)
          equal(error.message, `bad value in the network configuration at ${path}`)
          match(error.details, /must|cannot/)
          return true
        }
      )
    })
  }
  for (const args of ['FOO=1', 'IP', 'IP=x', 'MAC=x', 'IgnoreUnknown=maybe']) {
    test(`CNI_ARGS ${args} is error 4 that names it`, () => {
      throws(() => weft.attachment(call({}, args)), { code: 4, message: /^CNI_ARGS: / })
    })
  }
})

describe('what cannot be had yet', () => {
  for (const [configuration, key] of [
    [{ ipam: { type: 'dhcp' } }, /ipam\.type: "dhcp"/],
    [{ vlan: 5 }, /vlan: 5/],
    [{ vlanTrunk: [{ id: 5 }] }, /vlanTrunk: /],
    [{ portIsolation: true }, /portIsolation: true/],
    [{ macspoofchk: true }, /macspoofchk: true/],
    [{ disableContainerInterface: true }, /disableContainerInterface: true/],
    [{ forceAddress: true }, /forceAddress: true/],
    [{ isGateway: false }, /isGateway: false/]
  ] as const) {
    test(`${JSON.stringify(configuration)} is error 2 that names the key`, () => {
      throws(() => weft.attachment(call(configuration)), { code: 2, message: key })
    })
  }
  test('keys of bridge that ask for what weft does anyway, or for nothing, are no fault', () => {
    const off = { portIsolation: false, macspoofchk: false, disableContainerInterface: false, forceAddress: false }
    const configuration = { ...off, vlan: 0, vlanTrunk: [], isGateway: true, preserveDefaultVlan: true }
    deepEqual(weft.attachment(call(configuration)), { ...plain, sandbox: '/run/netns/c1' })
  })
  for (const mtu of [1, 67, -1, 65_536, 1400.5, '1400'])
    test(`mtu ${JSON.stringify(mtu)} is refused by the one rule`, () => {
      throws(() => weft.attachment(call({ mtu })), {
        code: 7,
        details: /must be 0 \(not given\) or a whole number from 68 to 65535/
      })
    })
  test('empty lists and rates of zero ask for nothing', () => {
    const nothing = { runtimeConfig: { portMappings: [], bandwidth: { ingressRate: 0, egressBurst: 0 } } }
    deepEqual(weft.attachment(call(nothing)), { ...plain, sandbox: '/run/netns/c1' })
  })
})

describe('DEL', () => {
  test('always knows what to take away, whatever became of the configuration', () => {
    for (const broken of [
      { mtu: 'x' },
      { runtimeConfig: { portMappings: [{}] } },
      { ipam: { dataDir: 5 } },
      { args: [] }
    ]) {
      deepEqual(weft.attachment(del(broken)), plain)
    }
    deepEqual(weft.attachment(del({}, 'nonsense')), plain)
  })
  test('keeps the folder of reservations where only something else is broken', () => {
    equal(weft.attachment(del({ mtu: 'x', ipam: { dataDir: '/run/x' } })).ipam?.dataDir, '/run/x')
  })
})
