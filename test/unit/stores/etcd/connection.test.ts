// Texts of grpc's errors: the same for the same cause.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { text } from '../../../../daemon/stores/etcd/connection.ts'

for (const [what, message, expected] of [
  ['a code', '14 UNAVAILABLE: No connection established', 'No connection established'],
  [
    'an unknown host, with what grpc measured',
    '4 DEADLINE_EXCEEDED: Deadline exceeded after 5.004s,waiting for name resolution',
    'Deadline exceeded,waiting for name resolution'
  ],
  [
    'a member that does not answer, with what grpc measured',
    '4 DEADLINE_EXCEEDED: Deadline exceeded after 5.001s,name resolution: 0.003s,metadata filters: 0.001s,LB pick: 0.012s,remote_addr=192.0.2.1:2379',
    'Deadline exceeded,remote_addr=192.0.2.1:2379'
  ],
  ['an address that looks like a time', 'connect ECONNREFUSED 127.0.0.1:2379', 'connect ECONNREFUSED 127.0.0.1:2379']
] as const)
  test(`${what} is printed without what changes from one attempt to the next`, () => {
    assert.equal(text(new Error(message)), expected)
  })
