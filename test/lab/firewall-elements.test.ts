// Elements of nftables sets and maps as our own messages: the kernel accepts each kind, nft reads them back as wanted,
// and a refusal rolls back the transaction.
import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  isolatedBridge,
  isolatedPort,
  isolationBase,
  ownSource,
  sourceCheckBase
} from '../../daemon/firewall/bridge-ports.ts'
import {
  hostPortBase,
  hostPortDevice,
  hostPorts,
  translatedPods,
  translationBase
} from '../../daemon/firewall/host-ports.ts'
import { Lane } from '../../daemon/kernel/netlink/lane.ts'
import { NETLINK_NETFILTER } from '../../daemon/kernel/netlink/nfnetlink.ts'
import { RequestSocket } from '../../daemon/kernel/netlink/request-socket.ts'
import { elementBatch } from '../../daemon/kernel/nftables/elements.ts'
import { Firewall } from '../../daemon/kernel/nftables/firewall.ts'
import { errnoName } from '../../daemon/os/libc.ts'
import { type Change, difference } from '../../daemon/state/difference.ts'
import { type KernelObject, keyOf, parseMac, stateOf } from '../../daemon/state/object.ts'
import { changeText } from '../../daemon/state/text.ts'
import { parseIp } from '../../ipam/address.ts'
import { bring, ofWeft } from './firewall-keeper.ts'
import { ensureOwnNamespace } from './firewall-scene.ts'
import { run } from './run.ts'

ensureOwnNamespace(fileURLToPath(import.meta.url))

beforeEach(() => run('nft', ['flush', 'ruleset']))

const parsed = (text: string) => parseIp(text) ?? assert.fail(text)
const mac = (text: string) => parseMac(text) ?? assert.fail(text)
const ips = [parsed('10.244.1.2'), parsed('fd00:10:0:1::2')]
const isElement = ({ kind }: KernelObject) => kind === 'nft-element'
const isolated = isolatedBridge('cni0')
const shared = [
  ...hostPortBase(),
  ...translationBase(),
  ...sourceCheckBase(),
  ...isolationBase(),
  ...isolated.filter((object) => !isElement(object))
]
const elements = [
  ...hostPorts(
    [
      { protocol: 'tcp', hostPort: 80, containerPort: 8080 },
      { protocol: 'udp', hostPort: 65535, containerPort: 1 },
      { protocol: 'sctp', hostPort: 256, containerPort: 255, hostIp: parsed('192.0.2.1') },
      { protocol: 'tcp', hostPort: 443, containerPort: 443, hostIp: parsed('2001:db8::1') }
    ],
    ips,
    'vetha',
    'default/web'
  ),
  ...translatedPods(ips, 'vetha', 'default/web'),
  ...hostPortDevice('a-device-of-15.', 'vetha default/web').filter(isElement),
  ...ownSource('vetha', mac('02:0a:f4:01:02:ff'), 'vetha', 'default/web'),
  // With the longest comment possible.
  isolatedPort('vetha', 'vetha', 'x'.repeat(200)),
  ...isolated.filter(isElement)
]
const changes = (verb: 'put' | 'remove') => elements.map((object) => ({ do: verb, object }))
const transact = async (socket: RequestSocket, what: readonly Change[]) =>
  (await socket.transact(elementBatch(what) ?? assert.fail('an element has a form that is not known'))).flatMap(
    (failure) => failure ?? []
  )
const differs = async (firewall: Firewall, desired: readonly KernelObject[]) =>
  difference(stateOf(desired), stateOf(await firewall.read(ofWeft))).map(changeText)

test('every kind of element reads back as wanted, is replaced and removed', async () => {
  await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
  using socket = new RequestSocket(new Lane(), NETLINK_NETFILTER)
  await bring(firewall, shared)
  assert.deepEqual(await transact(socket, changes('put')), [])
  assert.deepEqual(await differs(firewall, [...shared, ...elements]), [])
  const others = hostPorts(
    [{ protocol: 'tcp', hostPort: 80, containerPort: 9 }],
    [parsed('10.244.1.3'), parsed('fd00:10:0:1::3')],
    'vethb',
    'default/other'
  )
  const instead = others.map((object) => ({ do: 'put' as const, object, instead: object }))
  assert.deepEqual(await transact(socket, instead), [])
  const replaced = new Set(others.map(keyOf))
  const left = elements.filter((each) => !replaced.has(keyOf(each)))
  assert.deepEqual(await differs(firewall, [...shared, ...left, ...others]), [])
  assert.deepEqual(await transact(socket, changes('remove')), [])
  assert.deepEqual(await differs(firewall, shared), [])
})

test('a transaction with a missing element is not applied, and libnftables does the rest', async () => {
  await using firewall = new Firewall({ iptablesResyncSeconds: 60 })
  using socket = new RequestSocket(new Lane(), NETLINK_NETFILTER)
  await bring(firewall, [...shared, ...elements])
  const missing = hostPorts([{ protocol: 'tcp', hostPort: 9, containerPort: 9 }], ips, 'vetha', 'default/web')
  const all = [...elements, ...missing].map((object) => ({ do: 'remove' as const, object }))
  assert.deepEqual(
    (await transact(socket, all)).map(({ errno }) => errnoName(errno)),
    missing.map(() => 'ENOENT')
  )
  assert.deepEqual(await differs(firewall, [...shared, ...elements]), [])
  for (const { error } of await firewall.apply(all)) assert.ifError(error)
  assert.deepEqual(await differs(firewall, shared), [])
})
