// The messages on the socket: what is written is read again, and what is wrong is named.
import { deepEqual, equal, throws } from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  type CniRequest,
  isSent,
  parseControlReply,
  parseReply,
  parseRequest,
  type Reply
} from '../../../plugins/protocol.ts'

const request: CniRequest = {
  v: 1,
  plugin: 'weft',
  env: { CNI_COMMAND: 'ADD', TRACEPARENT: 'x', cni_lower: '1' },
  stdin: '{"name":"n"}\n',
  deadlineMs: 100,
  did: [
    { kind: 'ended', id: 'a', exit: 1, stdout: '{}', stderr: '' },
    { kind: 'failed', id: 'b', reason: 'killed' }
  ]
}

describe('requests', () => {
  test('a call is read as it was written', () => {
    deepEqual(parseRequest(JSON.stringify(request)), request)
  })
  test('a query of weftctl is recognised', () => {
    deepEqual(parseRequest('{"v":1,"ctl":"why","args":["10.0.0.5"]}'), { v: 1, ctl: 'why', args: ['10.0.0.5'] })
    deepEqual(parseRequest('{"v":1,"ctl":"status"}'), { v: 1, ctl: 'status', args: [] })
  })
  test('members that a later version adds are ignored', () => {
    deepEqual(parseRequest(JSON.stringify({ ...request, later: true })), request)
  })
  for (const [line, reason] of [
    ['', /the request is not understood/],
    ['[]', /must be an object/],
    ['{}', /v: nothing is wrong: must be 1/],
    [JSON.stringify({ ...request, v: 2 }), /v: 2 is wrong: must be 1; upgrade the older/],
    [JSON.stringify({ ...request, plugin: 5 }), /plugin: 5 is wrong/],
    [JSON.stringify({ ...request, env: [] }), /env: \[\] is wrong/],
    [JSON.stringify({ ...request, env: { A: 1 } }), /env\.A: 1 is wrong/],
    [JSON.stringify({ ...request, stdin: undefined }), /stdin: nothing is wrong: must be given/],
    [JSON.stringify({ ...request, deadlineMs: -1 }), /deadlineMs: -1 is wrong/],
    [JSON.stringify({ ...request, did: [{ id: 'a' }] }), /did\[0\]\.exit: nothing is wrong/],
    ['{"v":1,"ctl":"x","args":[1]}', /args\[0\]: 1 is wrong/]
  ] as const) {
    test(`${line.slice(0, 60)} is refused with the member's name: ${reason.source.slice(0, 30)}`, () => {
      throws(() => parseRequest(line), { name: 'ProtocolError', message: reason })
    })
  }
})

describe('replies', () => {
  test('a last word is read, absent texts are empty', () => {
    deepEqual(parseReply('{"v":1,"exit":1,"stdout":"x"}'), { v: 1, exit: 1, stdout: 'x', stderr: '' })
  })
  test('a delegate to be run is read as it was written', () => {
    const reply: Reply = {
      v: 1,
      run: { id: 'i', type: 'dhcp', path: ['/a'], env: { CNI_COMMAND: 'ADD' }, stdin: '', deadlineMs: 9 }
    }
    deepEqual(parseReply(JSON.stringify(reply)), reply)
  })
  for (const [line, reason] of [
    ['{"v":1}', /exit: nothing is wrong/],
    ['{"v":1,"exit":256}', /exit: 256/],
    ['{"v":1,"exit":0,"stdout":{}}', /stdout: \{\}/],
    [
      '{"v":1,"run":{"id":"i","type":"../dhcp","path":[],"env":{},"stdin":"","deadlineMs":1}}',
      /run\.type: "\.\.\/dhcp" is wrong: must be a file name/
    ],
    ['{"v":1,"run":{"id":"i","type":"x","path":"/a","env":{},"stdin":"","deadlineMs":1}}', /run\.path: "\/a"/],
    ['{"v":1,"run":{"id":"i","type":"x","path":[],"env":{},"stdin":"","deadlineMs":0}}', /run\.deadlineMs: 0/]
  ] as const) {
    test(`${line.slice(0, 50)} is refused with the member's name: ${reason.source.slice(0, 20)}`, () => {
      throws(() => parseReply(line), { name: 'ProtocolError', message: reason })
    })
  }
  test('answers to weftctl are a value or an error with its cure', () => {
    deepEqual(parseControlReply('{"v":1,"answer":[1]}'), { v: 1, answer: [1] })
    deepEqual(parseControlReply('{"v":1,"error":{"code":"NO_LEASE","message":"m","cure":"c"}}'), {
      v: 1,
      error: { code: 'NO_LEASE', message: 'm', cure: 'c' }
    })
  })
})

test('variables of CNI and TRACEPARENT are sent, others are not', () => {
  for (const name of ['CNI_COMMAND', 'CNI_NETNS_OVERRIDE', 'TRACEPARENT']) equal(isSent(name), true)
  for (const name of ['PATH', 'HOME', 'XCNI_COMMAND', 'TRACEPARENT2', 'TRACESTATE', 'BAGGAGE'])
    equal(isSent(name), false)
})
