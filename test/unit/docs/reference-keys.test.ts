// Every key of the reference plugins is one of ours: documented, done, or refused by its name when it asks for
// something. The list is compared with the reference's executables where they were built.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { CniError, cniCode } from '../../../plugins/cni/error.ts'
import type { AddCall } from '../../../plugins/cni/types.ts'
import { pluginNamed } from '../../../plugins/types/registry.ts'
import { PLUGIN_KEYS } from '../../../scripts/docs/plugin-keys.ts'
import { missingPeer, peersDirectory } from '../../lab/peers.ts'

/** Keys of release 1.9.1 by plugin, without those that the specification gives to every plugin. */
const REFERENCE: Readonly<Record<string, readonly string[]>> = {
  bridge: [
    ...['bridge', 'isGateway', 'isDefaultGateway', 'forceAddress', 'ipMasq', 'ipMasqBackend', 'mtu', 'hairpinMode'],
    ...['promiscMode', 'vlan', 'vlanTrunk', 'preserveDefaultVlan', 'macspoofchk', 'enabledad'],
    ...['disableContainerInterface', 'portIsolation', 'mac']
  ],
  ptp: ['ipMasq', 'ipMasqBackend', 'mtu'],
  macvlan: ['master', 'mode', 'mtu', 'mac', 'linkInContainer', 'bcqueuelen'],
  loopback: [],
  'host-local': [
    'subnet',
    'rangeStart',
    'rangeEnd',
    'gateway',
    'ranges',
    'routes',
    'resolvConf',
    'dataDir',
    'ipRanges'
  ],
  static: ['addresses', 'address', 'gateway', 'routes', 'dns', 'ips'],
  portmap: [
    ...['backend', 'snat', 'markMasqBit', 'externalSetMarkChain', 'masqAll', 'conditionsV4', 'conditionsV6'],
    ...['portMappings', 'hostPort', 'containerPort', 'protocol', 'hostIP']
  ],
  bandwidth: ['ingressRate', 'ingressBurst', 'egressRate', 'egressBurst', 'bandwidth'],
  tuning: ['sysctl', 'mac', 'mtu', 'promisc', 'allmulti', 'txQLen', 'dataDir'],
  firewall: ['backend', 'iptablesAdminChainName', 'firewalldZone', 'ingressPolicy']
}

/** What asks for something that Weft does not do. */
const REFUSED: readonly (readonly [type: string, keys: Readonly<Record<string, unknown>>])[] = [
  ['bridge', { enabledad: true }],
  ['firewall', { backend: 'firewalld' }],
  ['firewall', { firewalldZone: 'trusted' }],
  ['firewall', { firewalldZone: 'trusted', backend: '' }]
]
const TAKEN: typeof REFUSED = [
  ['bridge', { vlan: 0, vlanTrunk: [], enabledad: false, preserveDefaultVlan: true, ipMasqBackend: 'iptables' }],
  ['bridge', { vlan: 5, preserveDefaultVlan: false }],
  ['bridge', { vlanTrunk: [{ id: 5 }, { minID: 7, maxID: 9 }] }],
  ['ptp', { ipMasqBackend: 'nftables', ipam: { type: 'static', addresses: [] } }],
  ['firewall', { backend: 'iptables', firewalldZone: 'trusted' }],
  ['firewall', { backend: '', firewalldZone: '' }]
]

const attachmentOf = (type: string, keys: Readonly<Record<string, unknown>>, verb: 'ADD' | 'DEL' = 'ADD') => {
  const configuration = { cniVersion: '1.0.0', name: 'n', type, ...keys }
  const call = { verb, plugin: type, network: 'n', version: '1.0.0', configuration, containerId: 'c', ifname: 'eth0' }
  return pluginNamed(type)?.attachment({
    ...call,
    netns: '/x',
    args: '',
    path: [],
    mayBeOwnNamespace: false
  } as AddCall)
}

describe("the reference's keys", () => {
  for (const [type, keys] of Object.entries(REFERENCE)) {
    test(`of ${type} are all in the table`, () => {
      const parts = new Set((PLUGIN_KEYS[type] ?? []).flatMap(([key]) => key.replaceAll('[]', '').split('.')))
      assert.deepEqual(
        keys.filter((key) => !parts.has(key)),
        []
      )
    })

    test(`of ${type} are those of its executable`, { skip: missingPeer(`cni/${type}`) }, () => {
      const tagsOf = (name: string) =>
        new Set(
          [...readFileSync(join(peersDirectory(), 'cni', name), 'latin1').matchAll(/json:"([\w.]+)/g)].map(
            ([, tag = '']) => tag
          )
        )
      const [own, common] = [tagsOf(type), tagsOf('loopback')]
      assert.deepEqual(
        keys.filter((key) => !own.has(key)),
        []
      )
      // The bridge also has the tags of a library for nft's JSON.
      if (type === 'bridge') return
      const others = ['args', 'cni', 'ignoreunknown', 'runtimeConfig']
      assert.deepEqual(
        [...own].filter((tag) => !common.has(tag) && !others.includes(tag) && !keys.includes(tag)),
        []
      )
    })
  }

  for (const [type, keys] of REFUSED)
    test(`${JSON.stringify(keys)} of ${type} is refused by name, and no DEL fails for it`, () => {
      const [name = ''] = Object.keys(keys)
      const isNamed = (error: unknown) =>
        error instanceof CniError && error.code === cniCode.unsupportedField && error.message.includes(`: ${name}: `)
      assert.throws(() => attachmentOf(type, keys), isNamed)
      assert.ok(attachmentOf(type, keys, 'DEL'))
    })
  for (const [type, keys] of TAKEN)
    test(`${JSON.stringify(keys)} of ${type} is taken`, () => assert.ok(attachmentOf(type, keys)))
})
