// The seven calls of etcd's v3 API that Weft uses: rpc.proto and kv.proto, reduced to the fields in use.
import type { Message, Sent, Value } from '../../base/protobuf.ts'

const HEADER = { revision: [3, 'number'] } as const
const KEY_VALUE = {
  key: [1, 'text'],
  created: [2, 'number'],
  modified: [3, 'number'],
  value: [5, 'text'],
  lease: [6, 'int64']
} as const
const RANGE = {
  key: [1, 'text'],
  rangeEnd: [2, 'text'],
  limit: [3, 'number'],
  revision: [4, 'number'],
  keysOnly: [8, 'flag'],
  createdFrom: [12, 'number']
} as const
const OPERATION = {
  put: [2, { key: [1, 'text'], value: [2, 'text'], lease: [3, 'int64'] }],
  deleteRange: [3, { key: [1, 'text'] }]
} as const
/** `result` 0 is equal; `target` 0 compares the version, 2 the revision of the last change. */
const COMPARE = {
  result: [1, 'number'],
  target: [2, 'number'],
  key: [3, 'text'],
  version: [4, 'number'],
  modified: [6, 'number']
} as const
/** `type` 0 is a put, 1 a deletion. */
const EVENT = { type: [1, 'number'], record: [2, KEY_VALUE] } as const

export type KeyValue = Value<typeof KEY_VALUE>
export type Operation = Sent<typeof OPERATION>
export type Compare = Sent<typeof COMPARE>

type Call = { readonly path: string; readonly request: Message; readonly response: Message }

export const CALLS = {
  range: {
    path: '/etcdserverpb.KV/Range',
    request: RANGE,
    response: { header: [1, HEADER], records: [2, [KEY_VALUE]], more: [3, 'flag'] }
  },
  transaction: {
    path: '/etcdserverpb.KV/Txn',
    request: { compare: [1, [COMPARE]], success: [2, [OPERATION]] },
    response: { header: [1, HEADER], succeeded: [2, 'flag'] }
  },
  grant: {
    path: '/etcdserverpb.Lease/LeaseGrant',
    request: { ttlSeconds: [1, 'number'] },
    response: { id: [2, 'int64'] }
  },
  revoke: { path: '/etcdserverpb.Lease/LeaseRevoke', request: { id: [1, 'int64'] }, response: {} },
  keepAlive: {
    path: '/etcdserverpb.Lease/LeaseKeepAlive',
    request: { id: [1, 'int64'] },
    response: { ttlSeconds: [3, 'number'] }
  },
  watch: {
    path: '/etcdserverpb.Watch/Watch',
    request: {
      create: [1, { key: [1, 'text'], rangeEnd: [2, 'text'], startRevision: [3, 'number'] }],
      progress: [3, {}]
    },
    response: {
      watchId: [2, 'number'],
      canceled: [4, 'flag'],
      compactRevision: [5, 'number'],
      cancelReason: [6, 'text'],
      events: [11, [EVENT]]
    }
  },
  authenticate: {
    path: '/etcdserverpb.Auth/Authenticate',
    request: { name: [1, 'text'], password: [2, 'text'] },
    response: { token: [2, 'text'] }
  }
} as const satisfies { readonly [name: string]: Call }

export type CallName = keyof typeof CALLS
export type Request<N extends CallName> = Sent<(typeof CALLS)[N]['request']>
export type Response<N extends CallName> = Value<(typeof CALLS)[N]['response']>
