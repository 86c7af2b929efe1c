// Netlink messages with bytes changed, removed and duplicated: objects, or MalformedMessage; nothing is read beyond the
// message.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WeftError } from '../../daemon/base/error.ts'
import { Cache } from '../../daemon/kernel/cache.ts'
import {
  decodeAddress,
  decodeLink,
  decodeNeighbour,
  decodeRoute,
  portFlags
} from '../../daemon/kernel/netlink/decode.ts'
import { type Message, MessageWriter, readAcknowledgement, readMessages } from '../../daemon/kernel/netlink/message.ts'
import { IFA, IFLA, IFLA_INFO, IFLA_VXLAN, NDA, RTA, RTM } from '../../daemon/kernel/netlink/uapi.ts'
import { Transactions } from '../../daemon/kernel/nftables/notification.ts'
import { keyOf } from '../../daemon/state/object.ts'
import { campaign, casesOf } from './campaign.ts'
import type { Random } from './random.ts'

const mac = Uint8Array.of(2, 0, 0, 0, 0, 1)
const ip4 = Uint8Array.of(10, 1, 2, 3)
const ip6 = Uint8Array.from({ length: 16 }, (_, at) => at)

/** ifinfomsg: family, type, index, flags, change. */
const link = (name: string, kind: string, index: number) =>
  new MessageWriter(RTM.newLink, 0)
    .fixed([1, 0], [1, 0], [2, 1], [4, index], [4, 1], [4, 0])
    .text(IFLA.ifname, name)
    .u32(IFLA.mtu, 1450)
    .bytes(IFLA.address, mac)
    .u32(IFLA.master, 3)
    .text(IFLA.ifalias, 'weft net c1 eth0')
    .nest(IFLA.linkinfo, (info) => {
      info.text(IFLA_INFO.kind, kind)
      info.nest(IFLA_INFO.data, (data) =>
        data.u32(IFLA_VXLAN.id, 1).port(IFLA_VXLAN.port, 8472).bytes(IFLA_VXLAN.local, ip4).u32(IFLA_VXLAN.link, 2)
      )
    })
    .done()

const address = () =>
  new MessageWriter(RTM.newAddress, 0)
    .fixed([1, 2], [1, 24], [1, 0], [1, 0], [4, 2])
    .bytes(IFA.local, ip4)
    .u32(IFA.flags, 0x80)
    .done()

const route = (family: 2 | 10) =>
  new MessageWriter(RTM.newRoute, 0)
    .fixed([1, family], [1, 24], [1, 0], [1, 0], [1, 254], [1, 87], [1, 0], [1, 1], [4, 0])
    .bytes(RTA.dst, family === 2 ? ip4 : ip6)
    .u32(RTA.oif, 2)
    .bytes(RTA.gateway, family === 2 ? ip4 : ip6)
    .u32(RTA.priority, 5)
    .nest(RTA.metrics, (metrics) => metrics.u32(2, 1400))
    .done()

const neighbour = (family: 2 | 7) =>
  new MessageWriter(RTM.newNeighbour, 0)
    .fixed([1, family], [1, 0], [2, 0], [4, 2], [2, 0x80], [1, 0], [1, 0])
    .bytes(NDA.dst, ip4)
    .bytes(NDA.lladdr, mac)
    .done()

/** nfgenmsg, then the table's name; NFT_MSG_NEWCHAIN with a hook, and NFT_MSG_NEWGEN with pid and name. */
const nft = (type: number) =>
  new MessageWriter((10 << 8) | type, 0)
    .fixed([1, 1], [1, 0], [2, 0])
    .text(1, 'filter')
    .u32(2, 611)
    .text(3, 'nft')
    .nest(4, (hook) => hook.u32(1, 2))
    .done()

/** struct nlmsgerr with an errno, the request's header (capped there: 0x100) and the kernel's sentence (0x200). */
const acknowledgement = (flags: number) =>
  new MessageWriter(2, flags).fixed([4, -17], [4, 20], [2, 16], [2, 5], [4, 1], [4, 0]).text(1, 'exists').done()

const right: readonly Buffer[] = [
  link('eth0', 'veth', 2),
  link('br0', 'bridge', 3),
  link('weft.1', 'vxlan', 4),
  address(),
  route(2),
  route(10),
  neighbour(2),
  neighbour(7),
  nft(3),
  nft(15),
  acknowledgement(0x300),
  acknowledgement(0x200)
]

function spoiled(random: Random): Buffer {
  let bytes = Buffer.concat(Array.from({ length: random.between(1, 3) }, () => random.pick(right)))
  for (let times = random.pick([0, 1, 1, 2, 4, 16]); times > 0 && bytes.length > 0; times--) {
    const at = random.below(bytes.length)
    switch (random.below(6)) {
      case 0:
        bytes = bytes.subarray(0, at)
        break
      case 1:
        bytes = Buffer.concat([bytes.subarray(0, at), random.bytes(random.between(1, 9)), bytes.subarray(at)])
        break
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random.between(1, 9))])
        break
      default:
        // Lengths and types are in low octets: small numbers there find the most.
        bytes[at] = random.chance(0.6) ? random.below(24) : random.below(256)
    }
  }
  return Buffer.from(bytes)
}

function errorOnly<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (thrown) {
    if (!(thrown instanceof WeftError)) throw thrown
    assert.equal(thrown.code, 'NETLINK_MALFORMED')
    return undefined
  }
}

const nameOf = (index: number): string | undefined => ({ 2: 'eth0', 3: 'br0', 4: 'weft.1' })[index]
const decoders: readonly ((message: Message) => unknown)[] = [
  (message) => decodeLink(message, nameOf),
  (message) => decodeAddress(message, nameOf),
  (message) => decodeRoute(message, nameOf, true),
  (message) => decodeNeighbour(message, nameOf),
  portFlags,
  readAcknowledgement
]

test('messages are decoded or refused as malformed, by the observer and by every decoder', () => {
  let [heard, observed] = [0, new Cache(() => true)]
  let transactions = new Transactions()
  campaign('netlink', casesOf(0.1), (random, index) => {
    if (index % 1_000 === 0) [observed, transactions] = [new Cache(() => true), new Transactions()]
    for (const message of errorOnly(() => readMessages(spoiled(random))) ?? []) {
      const update = errorOnly(() => observed.apply(message))
      for (const { key, object } of update?.changed ?? []) {
        heard++
        if (object !== undefined) assert.equal(keyOf(object), key)
      }
      if (message.body.length >= 4) errorOnly(() => transactions.take(message, (port) => port === 1))
      // The observer passes a message to one decoder by its type; the others must accept any message too.
      errorOnly(() => random.pick(decoders)(message))
    }
  })
  assert.ok(heard > 0, 'no message was understood: the cases are too wild')
})

test('a transaction whose pid is cut short is malformed', () => {
  const [message] = readMessages(new MessageWriter((10 << 8) | 15, 0).fixed([4, 1]).bytes(2, Uint8Array.of(1)).done())
  assert.ok(message)
  assert.throws(() => new Transactions().take(message, () => false), WeftError)
})
