// The text that wireguard-go is asked and answers: what is sent, and what of an answer is believed.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { publicKeyOf } from '../../../daemon/base/x25519.ts'
import { deviceInText, setText, UapiRefused } from '../../../daemon/kernel/wireguard-uapi.ts'
import { Secret } from '../../../daemon/state/wireguard.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const key = (octet: number) => Buffer.alloc(32, octet).toString('base64')
const hex = (octet: number) => Buffer.alloc(32, octet).toString('hex')
const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)

const answer = `private_key=${hex(1)}
listen_port=51820
fwmark=7
public_key=${hex(2)}
preshared_key=${hex(0)}
protocol_version=1
endpoint=192.0.2.2:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
tx_bytes=11
rx_bytes=10
persistent_keepalive_interval=25
allowed_ip=10.244.2.0/24
allowed_ip=fd00:2::/64
public_key=${hex(3)}
preshared_key=${hex(4)}
endpoint=[fe80::1%eth0]:1
errno=0

`

test('an answer is a device with its peers', () => {
  const none = { handshakeAt: 0, sent: 0, received: 0 }
  assert.deepEqual(deviceInText(answer), {
    publicKey: publicKeyOf(key(1)),
    listenPort: 51820,
    peers: [
      {
        publicKey: key(2),
        endpoint: { ip: ip('192.0.2.2'), port: 51820 },
        ...{ presharedKey: undefined, keepalive: 25, allowedIps: [prefix('10.244.2.0/24'), prefix('fd00:2::/64')] },
        traffic: { handshakeAt: 1_700_000_000_500, sent: 11, received: 10 }
      },
      {
        ...{ publicKey: key(3), presharedKey: key(4), keepalive: 0, allowedIps: [], traffic: none },
        endpoint: { ip: ip('fe80::1'), port: 1 }
      }
    ]
  })
})

test('lines that are not known are passed over', () => {
  assert.equal(deviceInText(answer.replace('fwmark=7', 'colour=red\npeers=many')).peers.length, 2)
})

for (const [what, from, to] of [
  ['no end', 'errno=0\n\n', ''],
  ['a key of 31 octets', hex(2), hex(2).slice(2)],
  ['a port that is none', 'listen_port=51820', 'listen_port=65536'],
  ['a number that is none', 'tx_bytes=11', 'tx_bytes=11x'],
  ['a number that is negative', 'tx_bytes=11', 'tx_bytes=-11'],
  ['a number of a hundred digits', 'rx_bytes=10', `rx_bytes=${'9'.repeat(100)}`],
  ['more nanoseconds than a second has', 'nsec=500000000', 'nsec=1000000000'],
  ['an endpoint without a port', '192.0.2.2:51820', '192.0.2.2'],
  ['an address that is none', '10.244.2.0/24', '10.244.2.0/33'],
  ['a line without a key', 'fwmark=7', '7']
] as const)
  test(`an answer with ${what} is refused`, () => {
    assert.ok(answer.includes(from))
    assert.throws(() => deviceInText(answer.replace(from, to)), { code: 'WIREGUARD_ANSWER' })
  })

test('what is refused is not quoted at length, and control characters are none of a message', () => {
  assert.throws(
    () => deviceInText(answer.replace('192.0.2.2:51820', `\u001b[2J${'x'.repeat(10_000)}`)),
    (error: Error) => error.message.length < 300 && !error.message.includes('\u001b')
  )
})

test('a number from errno(3) is an error with that number', () => {
  assert.throws(
    () => deviceInText('errno=98\n\n'),
    (error) => error instanceof UapiRefused && error.errno === 98
  )
})

test('a change is what is to be changed, and nothing else', () => {
  const peers = [
    {
      ...{ publicKey: key(2), presharedKey: new Secret(key(3)), keepalive: 25 },
      endpoint: { ip: ip('2001:db8::2'), port: 51820 },
      allowedIps: [prefix('10.244.2.0/24')]
    },
    { publicKey: key(4), presharedKey: null, endpoint: { ip: ip('192.0.2.2'), port: 1 } },
    { publicKey: key(5), remove: true as const }
  ]
  assert.equal(
    setText({ device: 'weft-wg', privateKey: new Secret(key(1)), listenPort: 51820, peers }),
    `set=1
private_key=${hex(1)}
listen_port=51820
public_key=${hex(2)}
preshared_key=${hex(3)}
endpoint=[2001:db8::2]:51820
persistent_keepalive_interval=25
replace_allowed_ips=true
allowed_ip=10.244.2.0/24
public_key=${hex(4)}
preshared_key=${hex(0)}
endpoint=192.0.2.2:1
public_key=${hex(5)}
remove=true

`
  )
})
