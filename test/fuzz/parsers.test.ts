// Everything that the daemon reads from others (stores, files, the kernel, nft, its own clients) spoiled: a value or an
// error of ours, nothing else.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { BACKENDS, registry } from '../../daemon/backend/registry.ts'
import { WeftError } from '../../daemon/base/error.ts'
import { decode, encode } from '../../daemon/base/protobuf.ts'
import { parseOptions } from '../../daemon/cli/parse-options.ts'
import { parseNetConf } from '../../daemon/config/net-conf.ts'
import { parseSubnetEnv } from '../../daemon/config/subnet-env.ts'
import { savedTables } from '../../daemon/kernel/nftables/iptables-save.ts'
import { foreignTable, textsOf } from '../../daemon/kernel/nftables/parse-foreign-tables.ts'
import { entriesOf, tableObjects } from '../../daemon/kernel/nftables/parse-own-tables.ts'
import { acceptsIn } from '../../daemon/kernel/nftables/read-tables.ts'
import { bodyOfProtobuf, listOf, statusOf } from '../../daemon/kube/protobuf.ts'
import { formatLeaseValue, leaseKey, parseLease, parseLeaseKey } from '../../daemon/lease/lease.ts'
import { keyOf } from '../../daemon/state/object.ts'
import { CALLS } from '../../daemon/stores/etcd/messages.ts'
import { nodeOf } from '../../daemon/stores/kubernetes/node.ts'
import { formatIp, formatPrefix, parseIp, parsePrefix } from '../../ipam/address.ts'
import { ProtocolError, parseControlReply, parseReply, parseRequest } from '../../plugins/protocol.ts'
import { dualStackNode } from '../unit/test-node.ts'
import { campaign, casesOf } from './campaign.ts'
import type { Random } from './random.ts'
import { jsonOf, spoiledJson, spoiledText, treeOf } from './tree.ts'

const backends = registry(BACKENDS)

/** Runs `work`; besides an error of one of these kinds nothing may come out. */
function errorOnly<T>(work: () => T, kinds: readonly (new (...args: never) => Error)[] = [WeftError]): T | undefined {
  try {
    return work()
  } catch (thrown) {
    if (!kinds.some((kind) => thrown instanceof kind)) throw thrown
    assert.ok(thrown instanceof Error && thrown.message !== '')
    return undefined
  }
}

/** A few bytes replaced, taken out or put in. */
function spoiledBytes(random: Random, bytes: Buffer): Buffer {
  let spoiled = bytes
  for (let times = random.between(1, 4); times > 0; times--) {
    const at = random.below(spoiled.length + 1)
    const put = random.bytes(random.below(4))
    spoiled = Buffer.concat([spoiled.subarray(0, at), put, spoiled.subarray(at + random.below(4))])
  }
  return spoiled
}

const leases = [
  [
    '/coreos.com/network/subnets/10.2.14.0-24',
    {
      PublicIP: '192.0.2.7',
      PublicIPv6: null,
      BackendType: 'vxlan',
      BackendData: { VNI: 1, VtepMAC: '0a:58:0a:02:0e:00' }
    }
  ],
  [
    '10.2.14.0-24&fd00:2:e::-64',
    {
      PublicIP: '192.0.2.7',
      PublicIPv6: '2001:db8::7',
      BackendType: 'vxlan',
      BackendData: { VNI: 1, VtepMAC: '0a:58:0a:02:0e:00' },
      BackendV6Data: { VNI: 1, VtepMAC: '0a:58:0a:02:0e:01' }
    }
  ],
  ['0.0.0.0-0&fd00:2:e::-64', { PublicIP: '0.0.0.0', PublicIPv6: '2001:db8::7', BackendType: 'host-gw' }]
] as const

const networks = [
  { Network: '10.244.0.0/16', Backend: { Type: 'vxlan' } },
  {
    Network: '10.0.0.0/8',
    SubnetLen: 20,
    SubnetMin: '10.10.0.0',
    SubnetMax: '10.99.0.0',
    Backend: { Type: 'host-gw' }
  },
  {
    EnableIPv4: true,
    EnableIPv6: true,
    Network: '10.244.0.0/16',
    IPv6Network: 'fd00::/48',
    IPv6SubnetLen: 64,
    EnableNFTables: true,
    Backend: { Type: 'vxlan', VNI: 5, Port: 4789, DirectRouting: true, MTU: 1400, GBP: false, Learning: false }
  }
]

describe('what stores and files hold', () => {
  test('keys and values of leases: a lease that a backend can use or refuse, or LEASE_MALFORMED', () => {
    const node = dualStackNode()
    campaign('leases', casesOf(0.08), (random) => {
      const [key, value] = random.pick(leases)
      const spoiltKey = random.chance(0.4) ? spoiledText(random, key) : key
      const lease = errorOnly(() => parseLease(spoiltKey, spoiledJson(random, treeOf(value))))
      if (lease === undefined) return
      assert.deepEqual(parseLeaseKey(leaseKey(lease)), lease.subnet)
      assert.deepEqual(parseLease(leaseKey(lease), formatLeaseValue(lease)).subnet, lease.subnet)
      for (const type of ['vxlan', 'host-gw']) {
        const objects = errorOnly(() => backends.configure(type, {}).peer(lease, node)) ?? []
        for (const object of objects) assert.notEqual(keyOf(object), '')
      }
    })
  })

  test('protobuf of etcd and Kubernetes: a message, or a RangeError', () => {
    const [[key, value]] = leases
    const record = { key, created: 5, modified: 9, value: JSON.stringify(value), lease: 7587846322184347908n }
    const listing = { header: { revision: 2 ** 40 }, records: [record, record], more: true }
    const etcd = encode(CALLS.range.response, listing)
    const metadata = { name: 'n1', annotations: [{ key: 'flannel.alpha.coreos.com/public-ip', value: '192.0.2.7' }] }
    const NODE = {
      metadata: [1, { name: [1, 'text'], annotations: [12, [{ key: [1, 'text'], value: [2, 'text'] }]] }],
      spec: [2, { podCidrs: [7, ['text']] }]
    } as const
    const node = encode(NODE, { metadata, spec: { podCidrs: ['10.2.14.0/24'] } })
    const raw = encode({ metadata: [1, { version: [2, 'text'] }], items: [2, ['bytes']] } as const, {
      metadata: { version: '7' },
      items: [node, node]
    })
    const kubernetes = Buffer.concat([Buffer.from('k8s\0'), encode({ raw: [2, 'bytes'] } as const, { raw })])
    campaign('protobuf', casesOf(0.1), (random) => {
      const [one, other] = [spoiledBytes(random, etcd), spoiledBytes(random, kubernetes)]
      errorOnly(() => decode(CALLS.range.response, one), [RangeError])
      errorOnly(() => decode(CALLS.watch.response, one), [RangeError])
      const body = errorOnly(() => bodyOfProtobuf(other), [RangeError])
      if (body === undefined) return
      errorOnly(() => statusOf(body), [RangeError])
      const items = errorOnly(() => listOf(body).items, [RangeError]) ?? []
      for (const item of items) errorOnly(() => nodeOf(item, 'flannel.alpha.coreos.com/'), [RangeError])
    })
  })

  test('network configurations: one that backends understand, or CONFIG_INVALID with its source', () => {
    let good = 0
    campaign('network configurations', casesOf(0.08), (random) => {
      const text = spoiledJson(random, treeOf(random.pick(networks)))
      const conf = errorOnly(() => parseNetConf(text, 'the test'))
      if (conf === undefined) return
      good++
      for (const range of Object.values(conf.families)) {
        assert.ok(range.subnetMin.value <= range.subnetMax.value)
        assert.ok(range.subnetLength > range.network.length)
      }
      const backend = errorOnly(() => backends.configure(conf.backendType, conf.backend))
      if (backend !== undefined) errorOnly(() => backend.own(dualStackNode()))
    })
    assert.ok(good > 0)
  })

  test('subnet.env: what is there, or SUBNET_ENV_INVALID', () => {
    const text =
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nexport FLANNEL_IPV6_NETWORK="fd00::/48"\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n'
    campaign('subnet.env', casesOf(0.03), (random) => {
      let spoilt = text
      for (let times = random.between(1, 3); times > 0; times--) spoilt = spoiledText(random, spoilt)
      errorOnly(() => parseSubnetEnv(spoilt, '/run/flannel/subnet.env'))
    })
  })
})

describe('what people and clients write', () => {
  test('addresses and prefixes: what is read is written and read again as the same', () => {
    campaign('addresses', casesOf(0.05), (random) => {
      const start = random.pick(['10.1.2.3', '0.0.0.0', 'fd00::1', '::', '::ffff:10.1.2.3', '1:2:3:4:5:6:7:8'])
      const text = spoiledText(random, random.chance(0.3) ? spoiledText(random, start) : start)
      const ip = parseIp(text)
      if (ip !== undefined) assert.deepEqual(parseIp(formatIp(ip)), ip)
      const prefix = parsePrefix(spoiledText(random, `${start}/${random.below(140)}`))
      if (prefix !== undefined) assert.deepEqual(parsePrefix(formatPrefix(prefix)), prefix)
    })
  })

  test('lines of the socket: a request or an answer, or a ProtocolError', () => {
    const request = {
      v: 1,
      plugin: 'weft',
      env: { CNI_COMMAND: 'ADD' },
      stdin: '{}',
      deadlineMs: 100,
      did: [
        { id: 'a', exit: 1, stdout: '', stderr: '' },
        { id: 'b', reason: 'x' }
      ]
    }
    const control = { v: 1, ctl: 'status', args: ['x'] }
    const answers = [
      { v: 1, exit: 0, stdout: '', stderr: '' },
      { v: 1, answer: {} },
      { v: 1, error: { code: 'X', message: 'm', cure: 'c' } }
    ]
    campaign('lines', casesOf(0.06), (random) => {
      const asked = spoiledJson(random, treeOf(random.pick<object>([request, request, control])))
      errorOnly(() => parseRequest(asked), [ProtocolError])
      const answered = spoiledJson(random, treeOf(random.pick<object>(answers)))
      errorOnly(() => parseReply(answered), [ProtocolError])
      errorOnly(() => parseControlReply(answered), [ProtocolError])
    })
  })

  test('arguments and variables of weftd: options, or what is wrong with them', () => {
    const right = [
      '--etcd-endpoints=http://127.0.0.1:2379',
      '-iface=eth0',
      '--healthz-port',
      '8080',
      '--ip-masq',
      '-v=1',
      '--pod-mode=routed'
    ]
    campaign('options', casesOf(0.02), (random) => {
      const args = right.map((word) => (random.chance(0.3) ? spoiledText(random, word) : word))
      const parsed = parseOptions(args, {
        FLANNELD_IFACE: spoiledText(random, 'eth0'),
        WEFTD_SOCKET: spoiledText(random, '/x')
      })
      if (parsed.kind === 'wrong')
        for (const { message, cure } of parsed.errors) assert.ok(message !== '' && cure !== '')
    })
  })
})

const ruleset = {
  nftables: [
    { metainfo: { version: '1.0.6' } },
    { table: { family: 'inet', name: 'weft', handle: 1 } },
    {
      chain: {
        family: 'inet',
        table: 'weft',
        name: 'forward',
        handle: 1,
        type: 'filter',
        hook: 'forward',
        prio: 0,
        policy: 'drop'
      }
    },
    { chain: { family: 'inet', table: 'weft', name: 'other', handle: 2 } },
    {
      set: {
        family: 'inet',
        table: 'weft',
        name: 's',
        type: ['inet_proto', 'inet_service'],
        elem: [{ concat: ['tcp', 80] }, { elem: { val: { prefix: { addr: '10.0.0.0', len: 8 } }, comment: 'c' } }]
      }
    },
    {
      map: {
        family: 'inet',
        table: 'weft',
        name: 'm',
        type: 'ipv4_addr',
        map: 'verdict',
        elem: [
          ['10.0.0.1', { jump: { target: 'other' } }],
          [{ range: ['10.0.0.2', '10.0.0.9'] }, { drop: null }]
        ]
      }
    },
    {
      rule: {
        family: 'inet',
        table: 'weft',
        chain: 'forward',
        handle: 5,
        comment: 'weft 0123',
        expr: [
          {
            match: {
              op: '==',
              left: { payload: { protocol: 'ip', field: 'saddr' } },
              right: { prefix: { addr: '10.244.0.0', len: 16 } }
            }
          },
          { counter: { packets: 1, bytes: 2 } },
          { accept: null }
        ]
      }
    },
    {
      rule: {
        family: 'inet',
        table: 'weft',
        chain: 'forward',
        handle: 6,
        expr: [
          { match: { op: 'in', left: { ct: { key: 'state' } }, right: ['invalid'] } },
          { match: { op: '!=', left: { meta: { key: 'nfproto' } }, right: 'ipv6' } },
          { match: { op: '==', left: { '&': [{ meta: { key: 'mark' } }, 1] }, right: 1 } },
          {
            match: {
              op: '==',
              left: { payload: { protocol: 'ip6', field: 'daddr' } },
              right: { set: ['fd00::1', { range: ['fd00::2', 'fd00::9'] }] }
            }
          },
          { vmap: { key: { meta: { key: 'iifname' } }, data: { set: [['eth0', { goto: { target: 'other' } }]] } } },
          { xt: { type: 'target', name: 'REJECT' } }
        ]
      }
    }
  ]
}

const saved = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -s 10.244.0.0/16 -m comment --comment weft -j ACCEPT
-A DOCKER-USER ! -i br0 -m conntrack --ctstate INVALID,UNTRACKED -j DROP
-A DOCKER-USER -p tcp -m tcp --dport 80 -m comment --comment "a \\"b\\" c" -g X
COMMIT
`

describe('what tools of the firewall print', () => {
  test('listings of nft: objects with keys, tables that can be judged', () => {
    campaign('nft', casesOf(0.04), (random) => {
      // libnftables prints valid JSON; what stands in it may be of a version that we do not know.
      const text = jsonOf(spoiledEntries(random))
      const entries = errorOnly(() => entriesOf(text), [WeftError, SyntaxError]) ?? []
      for (const object of tableObjects(entries)) assert.notEqual(keyOf(object), '')
      acceptsIn([
        foreignTable('inet', 'filter', entries, textsOf(spoiledText(random, '  ct state invalid drop # handle 6\n')))
      ])
    })
  })

  test('iptables-save: tables that can be judged', () => {
    campaign('iptables-save', casesOf(0.02), (random) => {
      let text = saved
      for (let times = random.between(1, 4); times > 0; times--) text = spoiledText(random, text)
      acceptsIn(savedTables(text, random.pick([4, 6])))
    })
  })
})

function spoiledEntries(random: Random) {
  // Whatever else a version may print, it is an object.
  if (random.chance(0.05)) return treeOf({ nftables: [{ rule: { expr: [0] } }, 0, null, { chain: [] }] })
  const text = spoiledJson(random, treeOf(ruleset))
  try {
    const value: unknown = JSON.parse(text)
    // Keys are libnftables' own: these would only break the printing of texts by JavaScript.
    return treeOf(typeof value === 'object' && value !== null && !/"(toString|valueOf)":/.test(text) ? value : ruleset)
  } catch {
    return treeOf(ruleset)
  }
}
