// The bytes of FOU ports and ipip links, and how a generic family is found.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeLink } from '../../../../daemon/kernel/netlink/decode.ts'
import * as encode from '../../../../daemon/kernel/netlink/encode.ts'
import { KernelError } from '../../../../daemon/kernel/netlink/error.ts'
import { addFou, decodeFou, deleteFou, listFou } from '../../../../daemon/kernel/netlink/fou.ts'
import {
  familyNumber,
  GenericFamilies,
  genericRequest,
  getFamily,
  listedFamily
} from '../../../../daemon/kernel/netlink/generic.ts'
import { MalformedMessage, type Message, readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { IPIP, type IpipForm } from '../../../../daemon/state/ip-tunnel.ts'
import { type FouPort, type Link, sameObject } from '../../../../daemon/state/object.ts'
import { mayRemove } from '../../../../daemon/state/ownership.ts'
import { parseIp } from '../../../../ipam/address.ts'

const family = { id: 30, version: 1 }
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const local = ip('192.0.2.1')
const port: FouPort = { kind: 'fou', port: 8285, local, protocol: IPIP }

function only(bytes: Buffer): Message {
  const [message, ...rest] = readMessages(bytes)
  assert.ok(message !== undefined && rest.length === 0)
  return message
}

test('a FOU port is added with the attributes that ip(8) sends, and the mark', () => {
  const { type, flags, body } = only(addFou(family, port))
  assert.deepEqual([type, flags], [30, 1])
  assert.equal(
    body.toString('hex'),
    [
      '01010000', // FOU_CMD_ADD, version 1
      '06000100205d0000', // FOU_ATTR_PORT 8285 in network order
      '0500020002000000', // FOU_ATTR_AF AF_INET
      '08000600c0000201', // FOU_ATTR_LOCAL_V4
      '0500030004000000', // FOU_ATTR_IPPROTO 4
      '0500040001000000', // FOU_ATTR_TYPE FOU_ENCAP_DIRECT
      '04000500' // FOU_ATTR_REMCSUM_NOPARTIAL
    ].join('')
  )
})

test('a FOU port is deleted by port, family and address, and listed without any', () => {
  assert.equal(
    only(deleteFou(family, port)).body.toString('hex'),
    '02010000' + '06000100205d0000' + '0500020002000000' + '08000600c0000201'
  )
  assert.equal(only(listFou(family)).body.toString('hex'), '03010000')
})

test('a FOU port decodes to what was added; only one with the mark may be removed', () => {
  const found = decodeFou(only(addFou(family, port)))
  assert.deepEqual(found, { ...port, marked: true })
  assert.ok(found !== undefined && sameObject(port, found))
  const removable = (object: FouPort) => mayRemove(object, () => undefined)
  assert.deepEqual([removable(found), removable(port)], [true, false])
  const everywhere = addFou(family, { kind: 'fou', port: 1, local: ip('0.0.0.0'), protocol: 4 })
  assert.equal(decodeFou(only(everywhere))?.local, undefined)
})

test('a port of GUE or of IPv6 is none of ours', () => {
  const gue = genericRequest(family, 3).port(1, 8285).u8(2, 2).u8(3, 4).u8(4, 2).done()
  const six = genericRequest(family, 3).port(1, 8285).u8(2, 10).u8(3, 41).u8(4, 1).done()
  assert.deepEqual([decodeFou(only(gue)), decodeFou(only(six))], [undefined, undefined])
})

const resolve: encode.Resolve = { index: () => 1, netns: () => 99 }
const u16 = fc.nat(0xffff)
const form: fc.Arbitrary<IpipForm> = fc
  .record(
    { local: fc.bigInt({ min: 1n, max: 2n ** 32n - 1n }), fou: fc.tuple(u16, u16, fc.boolean()) },
    { requiredKeys: ['local'] }
  )
  .map(({ local: value, fou }) => ({
    ...({ type: 'ipip', local: { family: 4, value } } as const),
    ...(fou && { fou: { sourcePort: fou[0], destinationPort: fou[1], checksum: fou[2] } })
  }))

test('an ipip link decodes to what was encoded, with FOU and without', () => {
  fc.assert(
    fc.property(form, (wanted) => {
      const link: Link = { kind: 'link', name: 'weft.udp', form: wanted }
      assert.deepEqual(
        decodeLink(only(encode.createLink(link, resolve)), () => undefined).form,
        'fou' in wanted ? wanted : { type: 'ipip', local: wanted.local }
      )
    })
  )
})

test('the kernel gets port numbers in network order, flags in its own, time to live and DF', () => {
  const fou = { sourcePort: 8285, destinationPort: 8286, checksum: true }
  const link: Link = { kind: 'link', name: 'weft.udp', form: { type: 'ipip', local, fou } }
  const text = only(encode.createLink(link, resolve)).body.toString('hex')
  for (const attribute of [
    '08000200c0000201', // IFLA_IPTUN_LOCAL
    '0500040040000000', // IFLA_IPTUN_TTL 64
    '05000a0001000000', // IFLA_IPTUN_PMTUDISC
    '06000f0001000000', // IFLA_IPTUN_ENCAP_TYPE TUNNEL_ENCAP_FOU
    '0600100001000000', // IFLA_IPTUN_ENCAP_FLAGS TUNNEL_ENCAP_FLAG_CSUM
    '06001100205d0000', // IFLA_IPTUN_ENCAP_SPORT
    '06001200205e0000' // IFLA_IPTUN_ENCAP_DPORT
  ])
    assert.ok(text.includes(attribute), attribute)
})

test('tunl0 and a tunnel to one destination are of no form that is made here', () => {
  const link = (of: IpipForm): Buffer => encode.createLink({ kind: 'link', name: 'tunl0', form: of }, resolve)
  const other = { type: 'other', of: 'ipip' }
  assert.deepEqual(decodeLink(only(link({ type: 'ipip', local: ip('0.0.0.0') })), () => undefined).form, other)
  // IFLA_IPTUN_REMOTE in place of IFLA_IPTUN_TTL, which is as the kernel lists a tunnel to 192.0.2.9.
  const bytes = link({ type: 'ipip', local })
  const at = bytes.indexOf(Buffer.from('0500040040000000', 'hex'))
  Buffer.from('08000300c0000209', 'hex').copy(bytes, at)
  assert.deepEqual(decodeLink(only(bytes), () => undefined).form, other)
})

test('a family is asked for by name once, and one that is missing again', async () => {
  const answer = only(genericRequest({ id: 16, version: 2 }, 1).bytes(1, [0x1e, 0]).text(2, 'fou').done())
  assert.equal(familyNumber(answer), 30)
  assert.throws(() => familyNumber(only(genericRequest(family, 1).done())), MalformedMessage)
  const asked: string[] = []
  let isThere = false
  const families = new GenericFamilies({
    ask: async (request) => {
      asked.push(only(request).body.toString('hex'))
      if (!isThere) throw new KernelError({ operation: 'read', object: 'the family', errno: 2 })
      return answer
    }
  })
  assert.equal(await families.find('fou'), undefined)
  isThere = true
  assert.deepEqual(await families.find('fou'), { id: 30, version: 1 })
  assert.deepEqual(await families.find('fou'), { id: 30, version: 1 })
  assert.deepEqual(asked, new Array(2).fill(only(getFamily('fou')).body.toString('hex')))
  families.forget('fou')
  await families.find('fou')
  assert.equal(asked.length, 3)
  const listing = {
    collect: async (_: unknown, __: string, decode: (message: Message) => unknown) =>
      [answer].map(decode).filter((found) => found !== undefined)
  }
  const listed = (name: string) => listedFamily(listing as Parameters<typeof listedFamily>[0], name)
  assert.deepEqual([await listed('fou'), await listed('gue')], [{ id: 30, version: 1 }, undefined])
})

test('any bytes decode to a port, to nothing, or to a MalformedMessage', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      const message = { type: 30, flags: 0, sequence: 1, port: 0, body: Buffer.from(bytes) }
      for (const decode of [decodeFou, familyNumber]) {
        try {
          decode(message)
        } catch (error) {
          assert.ok(error instanceof MalformedMessage)
        }
      }
    })
  )
})
