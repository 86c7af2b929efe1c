// Both formats of the API server say the same, and bytes that are neither are an error, never a hang or a wrong node.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { policyOf } from '../../../daemon/kube/policy-warnings.ts'
import {
  bodyOfProtobuf,
  eventOfJson,
  eventOfProtobuf,
  type KubeBody,
  listOf,
  statusOf,
  versionOf
} from '../../../daemon/kube/protobuf.ts'
import { frames } from '../../../daemon/kube/response-body.ts'
import { nodeOf, projectNode } from '../../../daemon/stores/kubernetes/node.ts'

const PREFIX = 'flannel.alpha.coreos.com/'

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  return Buffer.from([...bytes, rest])
}
type Part = readonly [field: number, value: string | number | Buffer]
/** A protobuf message of these fields. */
const message = (...parts: readonly Part[]): Buffer =>
  Buffer.concat(
    parts.flatMap(([field, value]) => {
      if (typeof value === 'number') return [varint(8 * field), varint(value)]
      const bytes = typeof value === 'string' ? Buffer.from(value) : value
      return [varint(8 * field + 2), varint(bytes.length), bytes]
    })
  )
const alone = (raw: Buffer): Buffer => Buffer.concat([Buffer.from('k8s\0'), message([1, message([1, 'v1'])], [2, raw])])

type Shape = {
  readonly name: string
  readonly uid: string
  readonly version: string
  /** Seconds since 1970. */
  readonly created: number
  readonly podCIDRs: readonly string[]
  readonly annotations: Readonly<Record<string, string>>
  readonly conditions: readonly { readonly type: string; readonly status: string }[]
}
const asJson = ({ name, uid, version, created, podCIDRs, annotations, conditions }: Shape) => ({
  metadata: {
    ...{ name, uid, resourceVersion: version, annotations },
    creationTimestamp: new Date(1_000 * created).toISOString().replace('.000', '')
  },
  spec: { ...(podCIDRs[0] !== undefined && { podCIDR: podCIDRs[0] }), podCIDRs },
  status: { conditions }
})
const asProtobuf = ({ name, uid, version, created, podCIDRs, annotations, conditions }: Shape): Buffer => {
  const entries = Object.entries(annotations).map((entry): Part => [12, message([1, entry[0]], [2, entry[1]])])
  const first = podCIDRs.slice(0, 1).map((text): Part => [1, text])
  return message(
    [
      1,
      message([1, name], [5, uid], [6, version], [7, 2 ** 40], [8, message([1, created])], ...entries, [17, 'managed'])
    ],
    [2, message(...first, [4, 1], ...podCIDRs.map((text): Part => [7, text]))],
    [3, message(...conditions.map((one): Part => [4, message([1, one.type], [2, one.status])]), [8, 'image'])]
  )
}
const json = (object: object): KubeBody => ({
  format: 'json',
  json: object as Extract<KubeBody, { format: 'json' }>['json']
})

const word = fc.string({ unit: 'grapheme', maxLength: 9 })
const shape: fc.Arbitrary<Shape> = fc.record(
  {
    name: word,
    uid: word,
    version: fc.stringMatching(/^[1-9]\d{0,8}$/),
    created: fc.nat(4_000_000_000),
    podCIDRs: fc.array(fc.constantFrom('10.244.1.0/24', 'fd00::/64'), { maxLength: 2 }),
    annotations: fc.dictionary(
      fc.oneof(
        word,
        word.map((rest) => PREFIX + rest)
      ),
      word
    ),
    conditions: fc.array(fc.record({ type: fc.constantFrom('Ready', 'NetworkUnavailable'), status: word }), {
      maxLength: 1
    })
  },
  { noNullPrototype: true }
)

test('a node is the same lease in JSON and in protobuf', () => {
  fc.assert(
    fc.property(shape, (one) => {
      const body = bodyOfProtobuf(alone(asProtobuf(one)))
      assert.deepEqual({ ...nodeOf(body, PREFIX) }, { ...projectNode(asJson(one), PREFIX) })
      assert.deepEqual(nodeOf(json(asJson(one)), PREFIX), projectNode(asJson(one), PREFIX))
      assert.equal(versionOf(body), one.version)
    })
  )
})

test('a page is its objects, its version and the word for the next one, in both formats', () => {
  fc.assert(
    fc.property(fc.array(shape, { maxLength: 3 }), word, (nodes, next) => {
      const raw = message(
        [1, message([2, '77'], ...(next === '' ? [] : [[3, next] as const]))],
        ...nodes.map((node): Part => [2, asProtobuf(node)])
      )
      const [one, other] = [
        listOf(bodyOfProtobuf(alone(raw))),
        listOf(json({ metadata: { resourceVersion: '77', continue: next }, items: nodes.map(asJson) }))
      ]
      for (const list of [one, other]) {
        assert.deepEqual([list.version, list.next], ['77', next])
        assert.deepEqual(
          list.items.map((item) => nodeOf(item, PREFIX).name),
          nodes.map(({ name }) => name)
        )
      }
    })
  )
})

test('a Status says why, in both formats', () => {
  const cause = message([4, message([1, 'ResourceVersionTooLarge'])])
  const raw = message([3, 'too old'], [4, 'Expired'], [5, cause], [6, 410])
  const status = {
    message: 'too old',
    reason: 'Expired',
    code: 410,
    details: { causes: [{ reason: 'ResourceVersionTooLarge' }] }
  }
  assert.deepEqual(statusOf(bodyOfProtobuf(alone(raw))), status)
  assert.deepEqual(statusOf(json(status)), status)
})

test('events of a watch are the same in frames, however the network cuts them, and in lines', async () => {
  const events = fc.array(fc.tuple(fc.constantFrom('ADDED', 'DELETED'), shape), { maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(events, fc.array(fc.nat(60)), async (sent, sizes) => {
      const framed = sent.map(([type, node]) => {
        const frame = message([1, type], [2, message([1, alone(asProtobuf(node))])])
        return Buffer.concat([Buffer.from([0, 0, frame.length >> 8, frame.length & 255]), frame])
      })
      async function* cut() {
        let rest = Buffer.concat(framed)
        for (const size of sizes) {
          yield rest.subarray(0, size)
          rest = rest.subarray(size)
        }
        yield rest
      }
      const seen: (readonly [string, string])[] = []
      for await (const frame of frames(cut())) {
        const { type, object } = eventOfProtobuf(frame)
        seen.push([type, nodeOf(object, PREFIX).name])
      }
      const lines = sent.map(([type, node]) => eventOfJson({ type, object: asJson(node) }))
      assert.deepEqual(
        seen,
        lines.map(({ type, object }) => [type, nodeOf(object, PREFIX).name])
      )
    })
  )
})

test('bytes that are no message are a RangeError, whatever they are', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      const buffer = Buffer.from(bytes)
      for (const read of [
        () => nodeOf({ format: 'protobuf', bytes: buffer }, PREFIX),
        () => listOf({ format: 'protobuf', bytes: buffer }),
        () => statusOf({ format: 'protobuf', bytes: buffer }),
        () => policyOf({ format: 'protobuf', bytes: buffer }),
        () => eventOfProtobuf(buffer),
        () => bodyOfProtobuf(buffer)
      ])
        try {
          read()
        } catch (error) {
          assert.ok(error instanceof RangeError, String(error))
        }
    }),
    { numRuns: 500 }
  )
  assert.throws(() => bodyOfProtobuf(Buffer.from('{"kind":"Node"}')), RangeError)
})
