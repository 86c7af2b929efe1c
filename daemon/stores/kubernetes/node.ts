// Parses the parts of a Node object that a lease needs, from JSON or protobuf (k8s.io/api/core/v1/generated.proto).
import { decode, type Message } from '../../base/protobuf.ts'
import type { Json, JsonObject } from '../../config/json.ts'
import type { KubeBody } from '../../kube/protobuf.ts'
import type { KubeNode } from './record.ts'

/** Values of annotations are decoded only where the key has our prefix: others can be large. */
const NODE = {
  metadata: [
    1,
    {
      name: [1, 'text'],
      uid: [5, 'text'],
      created: [8, { seconds: [1, 'number'] }],
      annotations: [12, [{ key: [1, 'text'], value: [2, 'bytes'] }]]
    }
  ],
  spec: [2, { podCidr: [1, 'text'], podCidrs: [7, ['text']] }],
  status: [3, { conditions: [4, [{ type: [1, 'text'], status: [2, 'text'] }]] }]
} as const satisfies Message

/** `projectNode` for either format. */
export function nodeOf(body: KubeBody, prefix: string): KubeNode {
  if (body.format === 'json') return projectNode(body.json, prefix)
  const { metadata, spec, status } = decode(NODE, body.bytes)
  const annotations = (metadata?.annotations ?? []).flatMap(({ key, value }) =>
    key.startsWith(prefix) ? [[key.slice(prefix.length), value.toString()] as const] : []
  )
  const statusOf = (type: string) => status?.conditions.findLast((condition) => condition.type === type)?.status
  const podCidrs = spec?.podCidrs ?? []
  const podCidr = spec?.podCidr ?? ''
  return {
    name: metadata?.name ?? '',
    uid: metadata?.uid ?? '',
    podCidrs: podCidrs.length === 0 && podCidr !== '' ? [podCidr] : podCidrs,
    annotations: Object.fromEntries(annotations),
    networkUnavailable: statusOf('NetworkUnavailable'),
    ready: statusOf('Ready') === 'True',
    ...(metadata?.created && { created: 1_000 * metadata.created.seconds })
  }
}

const child = (object: Json | undefined, name: string): Json | undefined =>
  typeof object === 'object' && object !== null && !Array.isArray(object) ? (object as JsonObject)[name] : undefined
const textOf = (value: Json | undefined): string => (typeof value === 'string' ? value : '')
const listOf = (value: Json | undefined): readonly Json[] => (Array.isArray(value) ? value : [])

/** `prefix` as `annotationPrefix` returns it. Fields of another type count as absent. */
export function projectNode(object: Json, prefix: string): KubeNode {
  const metadata = child(object, 'metadata')
  const spec = child(object, 'spec')
  const created = Date.parse(textOf(child(metadata, 'creationTimestamp')))
  const written = child(metadata, 'annotations')
  const annotations = Object.entries((written ?? {}) as JsonObject).flatMap(([name, value]) =>
    name.startsWith(prefix) && typeof value === 'string' ? [[name.slice(prefix.length), value] as const] : []
  )
  const several = listOf(child(spec, 'podCIDRs')).map(textOf)
  const conditions = listOf(child(child(object, 'status'), 'conditions'))
  const statusOf = (type: string) => {
    const condition = conditions.find((one) => child(one, 'type') === type)
    return condition === undefined ? undefined : textOf(child(condition, 'status'))
  }
  return {
    name: textOf(child(metadata, 'name')),
    uid: textOf(child(metadata, 'uid')),
    // API servers before 1.16 have the singular field only.
    podCidrs: (several.length > 0 ? several : [textOf(child(spec, 'podCIDR'))]).filter((text) => text !== ''),
    annotations: Object.fromEntries(annotations),
    networkUnavailable: statusOf('NetworkUnavailable'),
    ready: statusOf('Ready') === 'True',
    ...(!Number.isNaN(created) && { created })
  }
}
