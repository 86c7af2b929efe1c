// The octets of WireGuard's generic netlink messages, written out from <linux/wireguard.h> and <linux/netlink.h>.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { deviceIn, getDevice, setDevice } from '../../../../daemon/kernel/netlink/wireguard.ts'
import { Secret } from '../../../../daemon/state/wireguard.ts'
import { parseIp, parsePrefix } from '../../../../ipam/address.ts'

const family = { id: 28, version: 1 }
const key = (octet: number) => Buffer.alloc(32, octet).toString('base64')
const octets = (count: number, value: string) => value.repeat(count)
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
/** What stands before `#` in each line, without spaces. */
const hex = (text: string) => text.replaceAll(/#.*$/gm, '').replaceAll(/\s/g, '')
const read = (text: string) => readMessages(Buffer.from(hex(text), 'hex'))

test('a device is asked for by name', () => {
  assert.equal(
    getDevice(family, 'weft-wg').toString('hex'),
    hex(`20000000 1c00 0100 00000000 00000000 # nlmsghdr
      00 01 0000                       # WG_CMD_GET_DEVICE, version 1
      0c00 0200 776566742d776700       # IFNAME`)
  )
})

test('a device’s key and port and a peer with all that it can have', () => {
  const [message, ...more] = setDevice(family, {
    ...{ device: 'weft-wg', privateKey: new Secret(key(1)), listenPort: 51820 },
    peers: [
      {
        ...{ publicKey: key(2), presharedKey: new Secret(key(3)), keepalive: 25 },
        endpoint: { ip: ip('192.0.2.2'), port: 51820 },
        allowedIps: [prefix('10.244.2.0/24')]
      }
    ]
  })
  assert.equal(more.length, 0)
  assert.equal(
    message?.toString('hex'),
    hex(`e0000000 1c00 0100 00000000 00000000 # nlmsghdr
      01 01 0000                       # WG_CMD_SET_DEVICE
      0c00 0200 776566742d776700       # IFNAME
      2400 0300 ${octets(32, '01')}    # PRIVATE_KEY
      0600 0600 6cca 0000              # LISTEN_PORT
      9400 0880                        # PEERS, nested
      9000 0080                        # one
      2400 0100 ${octets(32, '02')}    # PUBLIC_KEY
      2400 0200 ${octets(32, '03')}    # PRESHARED_KEY
      0800 0300 02000000               # FLAGS: replace the allowed addresses
      1400 0400 0200 ca6c c0000202 0000000000000000 # ENDPOINT, sockaddr_in
      0600 0500 1900 0000              # PERSISTENT_KEEPALIVE_INTERVAL
      2000 0980                        # ALLOWEDIPS, nested
      1c00 0080                        # one
      0600 0100 0200 0000              # FAMILY
      0800 0200 0af40200               # IPADDR
      0500 0300 18 000000              # CIDR_MASK`)
  )
})

test('an IPv6 endpoint, no pre-shared key, and a peer that goes', () => {
  const [message] = setDevice(family, {
    device: 'wg',
    peers: [
      { publicKey: key(2), presharedKey: null, endpoint: { ip: ip('2001:db8::2'), port: 1 } },
      { publicKey: key(4), remove: true }
    ]
  })
  assert.equal(
    message?.toString('hex'),
    hex(`bc000000 1c00 0100 00000000 00000000 01 01 0000
      0700 0200 776700 00
      a000 0880
      6c00 0080
      2400 0100 ${octets(32, '02')}
      2400 0200 ${octets(32, '00')}
      2000 0400 0a00 0001 00000000 20010db8000000000000000000000002 00000000
      3000 0080
      2400 0100 ${octets(32, '04')}
      0800 0300 01000000               # FLAGS: remove`)
  )
})

test('thousands of peers go in messages whose list of peers fits its length of 16 bits', () => {
  const peers = Array.from({ length: 1_000 }, (_, at) => ({
    ...{ publicKey: key(at % 256), presharedKey: new Secret(key(3)), keepalive: 1 },
    endpoint: { ip: ip('2001:db8::2'), port: 1 },
    allowedIps: [prefix('10.244.2.0/24'), prefix('fd00::/64')]
  }))
  const messages = setDevice(family, { device: 'weft-wg', listenPort: 1, peers })
  assert.ok(messages.length > 1)
  for (const message of messages) assert.ok(message.length < 65_536, `${message.length}`)
})

const header = '1c00 0200 00000000 00000000 00 01 0000'

test('a dump of two messages is one device; a peer that continues is one peer', () => {
  const peer = (more: string, length: string) => `${length} 0080 2400 0100 ${octets(32, '02')} ${more}`
  const allowed = (address: string) =>
    `2000 0980 1c00 0080 0600 0100 0200 0000 0800 0200 ${address} 0500 0300 18 000000`
  const device = deviceIn([
    ...read(`d4000000 ${header}
      2400 0400 ${octets(32, '05')}    # PUBLIC_KEY
      0600 0600 6cca 0000              # LISTEN_PORT
      9400 0880
      ${peer(
        `1400 0400 0200 ca6c c0000202 0000000000000000
        0600 0500 1900 0000
        1400 0600 0065cd1d00000000 0065cd1d00000000 # LAST_HANDSHAKE_TIME: 500,000,000 s and as many ns
        0c00 0700 0a00000000000000       # RX
        0c00 0800 0b00000000000000       # TX
        ${allowed('0af40200')}`,
        '9000'
      )}`),
    ...read(`60000000 ${header} 4c00 0880 ${peer(allowed('0af40300'), '4800')}`)
  ])
  assert.deepEqual([device.publicKey, device.listenPort, device.peers.length], [key(5), 51820, 1])
  assert.deepEqual(device.peers[0], {
    publicKey: key(2),
    endpoint: { ip: ip('192.0.2.2'), port: 51820 },
    presharedKey: undefined,
    keepalive: 25,
    allowedIps: [prefix('10.244.2.0/24'), prefix('10.244.3.0/24')],
    traffic: { handshakeAt: 500_000_000_500, sent: 11, received: 10 }
  })
})

test('a peer without a key, and an address of three octets, are refused', () => {
  for (const [length, peers] of [
    ['1c000000', '0800 0880 0400 0080'],
    ['54000000', `4000 0880 3c00 0080 2400 0100 ${octets(32, '02')} 1400 0980 1000 0080 0700 0200 010203 00 0400 0000`]
  ] as const)
    assert.throws(() => deviceIn(read(`${length} ${header} ${peers}`)), { code: 'NETLINK_MALFORMED' })
})

test('what is no key is not sent', () => {
  assert.throws(() => setDevice(family, { device: 'wg', peers: [{ publicKey: 'abc' }] }), RangeError)
})
