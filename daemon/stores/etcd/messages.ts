// The seven calls of etcd's v3 API that Weft makes, and the part of protobuf they need: etcd's rpc.proto and kv.proto trimmed to the fields in use.
// A table and a codec of its own, because a protobuf library and the whole of etcd's messages take more memory than all the leases of a large cluster.

/** How a field looks in TypeScript: `number` below 2^53; `id` an int64 in decimal; `text` bytes or string as UTF-8 (all our keys and values are text). */
type Scalar = 'number' | 'id' | 'flag' | 'text'
export type Message = {
  readonly [field: string]: readonly [number: number, type: Scalar | Message | readonly [Message]]
}

type ScalarOf = { readonly number: number; readonly id: string; readonly flag: boolean; readonly text: string }
type FieldOf<T> = T extends Scalar
  ? ScalarOf[T]
  : T extends readonly [infer M extends Message]
    ? readonly Value<M>[]
    : T extends Message
      ? Value<T> | undefined
      : never
/** A message as it was received: what was left out has proto3's default. */
export type Value<M extends Message> = { readonly [F in keyof M]: FieldOf<M[F][1]> }
type SentOf<T> = T extends Scalar
  ? ScalarOf[T]
  : T extends readonly [infer M extends Message]
    ? readonly Sent<M>[]
    : T extends Message
      ? Sent<T>
      : never
/** A message to be sent: what is left out is not sent. */
export type Sent<M extends Message> = { readonly [F in keyof M]?: SentOf<M[F][1]> }

const HEADER = { revision: [3, 'number'] } as const
const KEY_VALUE = {
  key: [1, 'text'],
  created: [2, 'number'],
  modified: [3, 'number'],
  value: [5, 'text'],
  lease: [6, 'id']
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
  put: [2, { key: [1, 'text'], value: [2, 'text'], lease: [3, 'id'] }],
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
    response: { id: [2, 'id'] }
  },
  revoke: { path: '/etcdserverpb.Lease/LeaseRevoke', request: { id: [1, 'id'] }, response: {} },
  keepAlive: {
    path: '/etcdserverpb.Lease/LeaseKeepAlive',
    request: { id: [1, 'id'] },
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

/** Wire types of protobuf: what a field's number is followed by. */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const

/** protobuf's encoding of a message (protobuf.dev, "Encoding"). */
export function encode<M extends Message>(message: M, value: Sent<M>): Buffer {
  const parts: Uint8Array[] = []
  for (const [name, [number, type]] of Object.entries(message)) {
    const given = value[name]
    if (given === undefined) continue
    // The table says what stands in each field; the generic type forgets it.
    if (Array.isArray(type))
      for (const one of given as readonly Sent<Message>[]) parts.push(...delimited(number, encode(type[0], one)))
    else if (typeof type === 'object') parts.push(...delimited(number, encode(type as Message, given as Sent<Message>)))
    else if (type === 'text') parts.push(...delimited(number, Buffer.from(given as string)))
    else parts.push(varint(BigInt((number << 3) | WIRE.varint)), varint(BigInt(given as number | string | boolean)))
  }
  return Buffer.concat(parts)
}

const delimited = (number: number, bytes: Uint8Array): readonly Uint8Array[] => [
  varint(BigInt((number << 3) | WIRE.bytes)),
  varint(BigInt(bytes.length)),
  bytes
]

function varint(value: bigint): Uint8Array {
  const bytes: number[] = []
  for (let rest = BigInt.asUintN(64, value); ; rest >>= 7n) {
    if (rest < 0x80n) return Uint8Array.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 0x7fn) | 0x80)
  }
}

type Field = { readonly name: string; readonly type: Message[string][1] }

/** A message's fields by number, made once: a listing holds thousands of messages of one kind. */
const fieldsOf = new WeakMap<Message, readonly (Field | undefined)[]>()

function fieldsByNumber(message: Message): readonly (Field | undefined)[] {
  const known = fieldsOf.get(message)
  if (known !== undefined) return known
  const fields: Field[] = []
  for (const [name, [number, type]] of Object.entries(message)) fields[number] = { name, type }
  fieldsOf.set(message, fields)
  return fields
}

/** The inverse; unknown fields are passed by. Throws a RangeError on bytes that are no message. */
export function decode<M extends Message>(message: M, bytes: Buffer): Value<M> {
  const fields = fieldsByNumber(message)
  const out: { [field: string]: unknown } = {}
  for (const name in message) out[name] = startOf(message[name]?.[1])
  const reader = new Reader(bytes)
  while (!reader.done) {
    const tag = reader.number()
    const field = fields[tag >>> 3]
    if (field === undefined || (tag & 7) !== wireOf(field.type)) reader.skip(tag & 7)
    else if (Array.isArray(field.type)) (out[field.name] as unknown[]).push(decode(field.type[0], reader.bytes()))
    else out[field.name] = read(field.type as Scalar | Message, reader)
  }
  return out as Value<M>
}

const wireOf = (type: Message[string][1]): number =>
  type === 'text' || typeof type === 'object' ? WIRE.bytes : WIRE.varint

const START = { number: 0, id: '0', flag: false, text: '' } as const

function startOf(type: Message[string][1] | undefined): unknown {
  if (Array.isArray(type)) return []
  return typeof type === 'string' ? START[type] : undefined
}

function read(type: Scalar | Message, reader: Reader): unknown {
  if (typeof type === 'object') return decode(type, reader.bytes())
  switch (type) {
    case 'text':
      return reader.bytes().toString()
    case 'number':
      return reader.number()
    case 'id':
      return String(reader.integer())
    case 'flag':
      return reader.number() !== 0
  }
}

class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length
  }

  /** An int64 that may need all its bits. */
  integer(): bigint {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#byte()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asIntN(64, value)
    }
    throw new RangeError('a number of more than 64 bits')
  }

  /** An int64 below 2^53; the first four bytes are read without BigInt, which is nearly always all. */
  number(): number {
    const start = this.#at
    let value = 0
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.#byte()
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
    this.#at = start
    return Number(this.integer())
  }

  bytes(): Buffer {
    const length = this.number()
    if (length < 0 || this.#at + length > this.#bytes.length)
      throw new RangeError('a field that is longer than its message')
    this.#at += length
    return this.#bytes.subarray(this.#at - length, this.#at)
  }

  skip(wire: number): void {
    if (wire === WIRE.varint) this.number()
    else if (wire === WIRE.bytes) this.bytes()
    else if (wire === WIRE.fixed64) this.#at += 8
    else if (wire === WIRE.fixed32) this.#at += 4
    else throw new RangeError(`wire type ${wire}`)
  }

  #byte(): number {
    const byte = this.#bytes[this.#at++]
    if (byte === undefined) throw new RangeError('a message that ends too early')
    return byte
  }
}
