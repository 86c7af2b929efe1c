// What weftd and the proxy say comes through as it was said, and whatever else arrives is refused with a reason.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { noCounters } from '../../../daemon/udp/counters.ts'
import { lineReader } from '../../../daemon/udp/lines.ts'
import {
  answerText,
  helloText,
  parseFromProxy,
  parseRequest,
  requestText,
  type Socket
} from '../../../daemon/udp/protocol.ts'
import { parseIp } from '../../../ipam/address.ts'

const local = parseIp('192.168.10.1')
assert.ok(local)
const socket: Socket = { device: 'flannel0', local, port: 8285 }
const peers = new Map([
  ['10.244.1.0/24', '192.168.10.2'],
  ['10.244.2.0/24', '192.168.10.3']
])

test('a request and a hello are read as they were written', () => {
  const request = { socket, put: peers, remove: ['10.244.7.0/24'], counters: true, end: true } as const
  assert.deepEqual(parseRequest(requestText(request)), request)
  assert.deepEqual(parseRequest(requestText({ socket: null })), { socket: null })
  const hello = { protocol: 1, version: '1.2.3', pid: 7, socket, peers, carries: true, lacks: ['this'] }
  assert.deepEqual(parseFromProxy(helloText(hello)), { kind: 'hello', hello })
  const idle = { ...hello, socket: undefined, peers: new Map<string, string>(), carries: false, fault: 'why' }
  assert.deepEqual(parseFromProxy(helloText(idle)), { kind: 'hello', hello: idle })
  const answer = { counters: { ...noCounters(), sent: 5 } }
  assert.deepEqual(parseFromProxy(answerText(answer)), { kind: 'answer', answer })
})

test('what is no request is refused with the reason', () => {
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['', /no JSON/],
    ['[]', /no object/],
    ['{"socket":{"device":"../x","local":"1.2.3.4","port":1}}', /device/],
    ['{"socket":{"device":"a","local":"fd00::1","port":1}}', /local/],
    ['{"socket":{"device":"a","local":"1.2.3.4","port":65536}}', /port/],
    ['{"put":{"10.1.0.0/33":"1.2.3.4"}}', /prefix/],
    ['{"put":{"10.1.0.0/24":"x"}}', /IPv4 address/],
    ['{"put":[]}', /no object/],
    ['{"remove":"10.1.0.0/24"}', /no list/],
    ['{"remove":[1]}', /prefix/]
  ]
  for (const [line, reason] of wrong) assert.throws(() => parseRequest(line), reason, line)
})

test('no text is anything but a request or an error', () => {
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc.object().map((value) => JSON.stringify(value))
  )
  fc.assert(
    fc.property(text, (line) => {
      for (const parse of [parseRequest, parseFromProxy]) {
        try {
          parse(line)
        } catch (error) {
          assert.equal(Object.getPrototypeOf(error), Error.prototype)
        }
      }
    })
  )
})

test('lines are found wherever the stream is cut, and one that is too long is refused', () => {
  fc.assert(
    fc.property(fc.array(fc.stringMatching(/^[a-z]{0,9}$/)), fc.array(fc.nat({ max: 90 })), (lines, cuts) => {
      const text = lines.map((line) => `${line}\n`).join('')
      const heard: string[] = []
      const read = lineReader((line) => void heard.push(line))
      const places = [0, ...cuts.map((at) => Math.min(at, text.length)).sort((a, b) => a - b), text.length]
      for (const [at, from] of places.slice(0, -1).entries()) read(text.slice(from, places[at + 1]))
      assert.deepEqual(heard, lines)
    })
  )
  const read = lineReader(() => undefined, 10)
  read('12345')
  assert.throws(() => read('678901'), RangeError)
})
