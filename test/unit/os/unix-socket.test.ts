// Datagrams to unix sockets: by path and by abstract name, byte for byte; what is no address is refused.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { close, prototypes, receiveNow } from '../../../daemon/os/libc.ts'
import { sendDatagram, unixAddress } from '../../../daemon/os/unix-socket.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-datagram-'))
after(() => rmSync(folder, { recursive: true }))
const AF_UNIX = 1
const SOCK_DGRAM = 2

/** A bound socket that receives. */
function receiver(name: string) {
  const address = unixAddress(name)
  const fd = prototypes.socket(AF_UNIX, SOCK_DGRAM, 0)
  assert.equal(prototypes.bind(fd, address, address.length), 0, name)
  return {
    received: () => {
      const into = Buffer.alloc(1_000)
      const length = receiveNow(fd, into)
      return length === undefined ? undefined : into.toString('utf8', 0, length)
    },
    [Symbol.dispose]: () => close(fd)
  }
}

for (const name of [
  join(folder, 'notify'),
  `@weft-test-${process.pid}`,
  `@${'x'.repeat(100)}-${process.pid}`.slice(0, 108)
])
  test(`a datagram to ${name[0] === '@' ? 'an abstract name' : 'a path'} of ${name.length} octets arrives whole`, () => {
    using socket = receiver(name)
    assert.equal(sendDatagram(name, 'READY=1\nSTATUS=bereit – ✓'), true)
    assert.equal(socket.received(), 'READY=1\nSTATUS=bereit – ✓')
    assert.equal(socket.received(), undefined)
  })

test('a full queue is no error and is not waited for; nobody there is an error with the address', () => {
  const name = join(folder, 'full')
  using _socket = receiver(name)
  let sent = 0
  while (sent < 100_000 && sendDatagram(name, 'x')) sent++
  assert.ok(sent > 0 && sent < 100_000)
  assert.throws(() => sendDatagram(join(folder, 'nobody'), 'x'), { message: /connect .*nobody: ENOENT/ })
})

for (const name of ['', '@', 'relative', `/${'x'.repeat(107)}`, `@${'x'.repeat(108)}`, '/with\0nul', 'vsock:2:1234'])
  test(`${JSON.stringify(name.slice(0, 12))} is no address`, () => assert.throws(() => unixAddress(name), RangeError))
