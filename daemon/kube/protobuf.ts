// Objects, lists, statuses and watch events as the API server sends them, in JSON or in protobuf (generated.proto of
// each API group). Nodes are requested as protobuf: 5,000 of them are listed in a third of the time and of the memory
// that JSON takes, since most of a node is skipped.
import { decode, type Message } from '../base/protobuf.ts'
import type { Json, JsonObject } from '../config/json.ts'

/** An object of the API. Protobuf is decoded by whoever knows the object's type. */
export type KubeBody =
  | { readonly format: 'json'; readonly json: JsonObject }
  | { readonly format: 'protobuf'; readonly bytes: Buffer }

/**
 * `k8s` and a zero before every object that is not in a stream
 * (staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
 */
const MAGIC = 0x6b_38_73_00
/** The envelope of every object. */
const UNKNOWN = { raw: [2, 'bytes'] } as const satisfies Message
/** The parts of ObjectMeta in use; metadata is field 1 of every object. */
export const OBJECT_META = { name: [1, 'text'], namespace: [3, 'text'], uid: [5, 'text'] } as const satisfies Message
const VERSIONED = { metadata: [1, { resourceVersion: [6, 'text'] }] } as const satisfies Message
const LIST = {
  metadata: [1, { resourceVersion: [2, 'text'], continue: [3, 'text'] }],
  items: [2, ['bytes']]
} as const satisfies Message
const STATUS = {
  message: [3, 'text'],
  reason: [4, 'text'],
  details: [5, { causes: [4, [{ reason: [1, 'text'] }]] }],
  code: [6, 'number']
} as const satisfies Message
/** The object is in an extension of its own, as if it had come alone. */
const WATCH_EVENT = { type: [1, 'text'], object: [2, { raw: [1, 'bytes'] }] } as const satisfies Message

/** A whole response, or the object of a watch event. Errors: RangeError for bytes that are none. */
export function bodyOfProtobuf(bytes: Buffer): KubeBody {
  if (bytes.length < 4 || bytes.readUInt32BE(0) !== MAGIC) throw new RangeError('no object of Kubernetes in protobuf')
  return { format: 'protobuf', bytes: decode(UNKNOWN, bytes.subarray(4)).raw }
}

const metadataOf = (json: JsonObject): JsonObject => (json.metadata ?? {}) as JsonObject
const textOf = (value: Json | undefined): string => (typeof value === 'string' ? value : '')

/** The objects of a list, its resourceVersion, and the token for the next page ('' after the last). */
export function listOf(body: KubeBody): {
  readonly items: readonly KubeBody[]
  readonly version: string
  readonly next: string
} {
  if (body.format === 'json') {
    const { resourceVersion, continue: next } = metadataOf(body.json)
    const items = ((body.json.items ?? []) as readonly JsonObject[]).map((json) => ({ format: 'json', json }) as const)
    return { items, version: textOf(resourceVersion), next: textOf(next) }
  }
  const { metadata, items } = decode(LIST, body.bytes)
  return {
    items: items.map((bytes) => ({ format: 'protobuf', bytes })),
    version: metadata?.resourceVersion ?? '',
    next: metadata?.continue ?? ''
  }
}

/** The resourceVersion of an object, '' without one. */
export const versionOf = (body: KubeBody): string =>
  body.format === 'json'
    ? textOf(metadataOf(body.json).resourceVersion)
    : (decode(VERSIONED, body.bytes).metadata?.resourceVersion ?? '')

/** A Status (apimachinery's meta/v1) as JSON. */
export function statusOf(body: KubeBody): JsonObject {
  if (body.format === 'json') return body.json
  const { code, details, ...texts } = decode(STATUS, body.bytes)
  const causes = details?.causes ?? []
  return { ...texts, ...(code !== 0 && { code }), ...(causes.length > 0 && { details: { causes } }) }
}

export type StreamEvent = {
  /** ADDED, MODIFIED, DELETED, BOOKMARK, ERROR. */
  readonly type: string
  readonly object: KubeBody
}

/** The event in one line of a JSON stream. */
export const eventOfJson = ({ type, object }: JsonObject): StreamEvent => ({
  type: textOf(type),
  object: { format: 'json', json: (object ?? {}) as JsonObject }
})

/** The event in one frame of a protobuf stream. Errors: RangeError for bytes that are none. */
export function eventOfProtobuf(frame: Buffer): StreamEvent {
  const { type, object } = decode(WATCH_EVENT, frame)
  return { type, object: object === undefined ? { format: 'json', json: {} } : bodyOfProtobuf(object.raw) }
}
