// What a lease needs of a node, read out of its protobuf (k8s.io/api/core/v1/generated.proto) without touching the rest.
import { eachField, type KubeBody, textIn } from '../../kube/protobuf.ts'
import { type KubeNode, projectNode } from './record.ts'

/** Field numbers, which never change once they are released. */
const NODE = { metadata: 1, spec: 2, status: 3 } as const
const METADATA = { name: 1, uid: 5, annotations: 12 } as const
const ENTRY = { key: 1, value: 2 } as const
const SPEC = { podCidr: 1, podCidrs: 7 } as const
const STATUS = { conditions: 4 } as const
const CONDITION = { type: 1, status: 2 } as const

/** As `projectNode`, of a node in either format. */
export function nodeOf(body: KubeBody, prefix: string): KubeNode {
  if (body.format === 'json') return projectNode(body.json, prefix)
  const { bytes } = body
  const found = { name: '', uid: '', podCidr: '', networkUnavailable: undefined as string | undefined, ready: false }
  const podCidrs: string[] = []
  const annotations: [name: string, value: string][] = []
  const metadata = (field: number, from: number, to: number): void => {
    if (field === METADATA.name) found.name = textIn(bytes, from, to)
    else if (field === METADATA.uid) found.uid = textIn(bytes, from, to)
    else if (field === METADATA.annotations) {
      const { key, value } = entryIn(bytes, from, to, prefix)
      if (key !== undefined) annotations.push([key, value])
    }
  }
  const spec = (field: number, from: number, to: number): void => {
    if (field === SPEC.podCidr) found.podCidr = textIn(bytes, from, to)
    else if (field === SPEC.podCidrs) podCidrs.push(textIn(bytes, from, to))
  }
  const status = (field: number, from: number, to: number): void => {
    if (field !== STATUS.conditions) return
    const condition = { type: '', status: '' }
    eachField(bytes, from, to, (inner, start, end) => {
      if (inner === CONDITION.type) condition.type = textIn(bytes, start, end)
      else if (inner === CONDITION.status) condition.status = textIn(bytes, start, end)
    })
    if (condition.type === 'Ready') found.ready = condition.status === 'True'
    else if (condition.type === 'NetworkUnavailable') found.networkUnavailable = condition.status
  }
  eachField(bytes, body.from, body.to, (field, from, to) => {
    if (field === NODE.metadata) eachField(bytes, from, to, metadata)
    else if (field === NODE.spec) eachField(bytes, from, to, spec)
    else if (field === NODE.status) eachField(bytes, from, to, status)
  })
  const { podCidr, ...rest } = found
  return {
    ...rest,
    podCidrs: podCidrs.length === 0 && podCidr !== '' ? [podCidr] : podCidrs,
    annotations: Object.fromEntries(annotations)
  }
}

/** One annotation without our prefix; no key when it has another. Values of others can be large and are not read. */
function entryIn(bytes: Buffer, from: number, to: number, prefix: string): { key?: string; value: string } {
  let key = ''
  let value: readonly [number, number] = [0, 0]
  eachField(bytes, from, to, (field, start, end) => {
    if (field === ENTRY.key) key = textIn(bytes, start, end)
    else if (field === ENTRY.value) value = [start, end]
  })
  return key.startsWith(prefix) ? { key: key.slice(prefix.length), value: textIn(bytes, ...value) } : { value: '' }
}
