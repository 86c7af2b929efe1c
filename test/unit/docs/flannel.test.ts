// docs/flannel.md is true: every flag, key and backend has its row, what it says of backends is what weftd has, and
// every test that it names is there.
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { BACKENDS } from '../../../daemon/backend/registry.ts'
import { FLAGS } from '../../../daemon/cli/flag-table.ts'
import { netConfSchema } from '../../../daemon/config/net-conf.schema.ts'
import { flannelRows } from './flannel-rows.ts'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const text = readFileSync(join(root, 'docs/flannel.md'), 'utf8')
const rows = flannelRows(text)
const of = (heading: string) => rows.filter((row) => row.heading === heading)
/** What stands in backquotes in the first column. */
const names = (heading: string) =>
  of(heading).map(({ what }) => [...what.matchAll(/`([^`]+)`/g)].map(([, word = '']) => word))

test('a row says same, better or not done, and the first two name a test', () => {
  assert.ok(rows.length > 60)
  for (const { what, how, why } of rows) {
    assert.match(how, /^(same|better|not done)$/, what)
    if (how === 'not done') assert.ok(why.length > 10, what)
    else assert.match(why, /`test\/[^`]+(\.test|\/stories\/[^`]+)\.ts` "/, what)
  }
})

test('every test that it names is there', () => {
  const named = [...text.replaceAll('\n', ' ').matchAll(/`(test\/[^`]+\.ts)` "([^"]+)"/g)]
  assert.ok(named.length > 60)
  for (const [, path = '', words = ''] of named) {
    assert.ok(existsSync(join(root, path)), path)
    const source = readFileSync(join(root, path), 'utf8').replaceAll("\\'", "'")
    assert.ok(source.includes(words), `${path} has no test "${words}"`)
  }
})

/** What flanneld 0.28 reads; test/interop/flannel.test.ts compares the flags with those that it prints. */
const FLANNELD_FLAGS = [
  ...[
    'etcd-endpoints',
    'etcd-prefix',
    'etcd-keyfile',
    'etcd-certfile',
    'etcd-cafile',
    'etcd-username',
    'etcd-password'
  ],
  ...[
    'iface',
    'iface-regex',
    'iface-can-reach',
    'public-ip',
    'public-ipv6',
    'subnet-file',
    'subnet-lease-renew-margin'
  ],
  ...['ip-masq', 'ip-masq-fully-random-disable', 'kube-subnet-mgr', 'kube-api-url', 'kubeconfig-file', 'healthz-ip'],
  ...['kube-annotation-prefix', 'net-config-path', 'set-node-network-unavailable', 'healthz-port', 'iptables-resync'],
  ...['iptables-forward-rules', 'ip-blackhole-route', 'version', 'v', 'vmodule', 'log_backtrace_at']
]
const FLANNELD_VARIABLES = [
  ...['FLANNELD_…', 'NODE_NAME', 'POD_NAME', 'POD_NAMESPACE', 'EVENT_QUEUE_DEPTH', 'CONT_WHEN_CACHE_NOT_READY'],
  ...['WIREGUARD_KEY_FILE', 'ACCESS_KEY_ID', 'ACCESS_KEY_SECRET'],
  ...['SUBNET', 'PUBLIC_IP', 'IPV6SUBNET', 'PUBLIC_IPV6', 'NETWORK']
]
const FLANNELD_BACKENDS = [
  ...['alloc', 'extension', 'host-gw', 'ipip', 'ipsec', 'tencent-vpc', 'udp', 'vxlan', 'wireguard']
]
const FLANNELD_ANNOTATIONS = [
  ...['kube-subnet-manager', 'backend-type', 'backend-data', 'backend-v6-data', 'public-ip', 'public-ipv6'],
  ...['public-ip-overwrite', 'public-ipv6-overwrite', 'node-public-ip', 'node-public-ipv6']
]
const FLANNELD_PLACES = [
  ...['FLANNEL-POSTRTG', 'FLANNEL-FWD', 'flannel-ipv4', 'flannel-ipv6', 'postrtg', 'forward'],
  ...['flannel.VNI', 'flannel-v6.VNI', '/healthz', '/readyz', 'NetworkUnavailable', 'READY=1'],
  ...['/run/flannel/subnet.env', '/etc/kube-flannel/net-conf.json', '/run/xtables.lock', 'mk-docker-opts.sh'],
  ...['/var/lib/cni/flannel', '/var/lib/cni/networks/cbr0', '10-flannel.conflist', 'kube-flannel-cfg']
]

test('each flag, variable, backend, annotation, chain and file of flanneld has its row', () => {
  const flags = names('Flags').map(([flag = '']) => flag.replace('--', ''))
  assert.deepEqual(flags.sort(), FLANNELD_FLAGS.toSorted())
  assert.deepEqual(names('Environment variables').flat().sort(), FLANNELD_VARIABLES.toSorted())
  const types = names('Backends').filter(({ length }) => length === 1)
  assert.deepEqual(types.flat().sort(), FLANNELD_BACKENDS)
  assert.deepEqual(names('Annotations of a node').flat().sort(), FLANNELD_ANNOTATIONS.toSorted())
  const places = ['Firewall', 'Devices and endpoints', 'Files and the CNI plugin'].flatMap(names).flat()
  for (const place of FLANNELD_PLACES) assert.ok(places.includes(place), place)
})

test('flags of flanneld are flags of weftd', () => {
  for (const [flag = ''] of names('Flags')) assert.ok(flag.replace('--', '') in FLAGS, flag)
})

test('each key of the network configuration has its row', () => {
  assert.deepEqual(
    names('Keys of the network configuration').flat().sort(),
    Object.keys(netConfSchema.properties).sort()
  )
})

test('a backend is the same or better if weftd has it, and each of its keys has a row', () => {
  const [types, keys] = [
    of('Backends').filter(({ what }) => !/` `/.test(what)),
    names('Backends').filter(({ length }) => length === 2)
  ]
  const has = types.filter(({ how }) => how !== 'not done').map(({ what }) => what.replaceAll('`', ''))
  assert.deepEqual(has.sort(), BACKENDS.map(({ type }) => type).sort())
  const ours = BACKENDS.flatMap((backend) => Object.keys(backend.keys).map((key) => `${backend.type} ${key}`))
  assert.deepEqual(keys.map((each) => each.join(' ')).sort(), ours.sort())
})
