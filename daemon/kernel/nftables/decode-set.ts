// Decodes the elements of an anonymous set or map, as nf_tables' messages list them, into those of libnftables-json(5).
import { Attributes, type Message } from '../netlink/message.ts'
import { NFGENMSG } from '../netlink/nfnetlink.ts'
import { type Loaded, rangeJson, valueJson } from './decode-value.ts'
import { NFT_SET_ELEM, NFTA_DATA, NFTA_LIST_ELEM, NFTA_SET_ELEM, NFTA_SET_ELEM_LIST } from './uapi.ts'

/** One element as the kernel lists it; the ends of intervals are elements, too. */
export type SetElement = {
  readonly key: Uint8Array
  readonly keyEnd?: Uint8Array
  readonly end: boolean
  readonly catchall: boolean
  /** The verdict of a verdict map, NFTA_VERDICT's attributes. */
  readonly verdict?: Attributes
}

/** The elements in one message of a dump; they are copied. */
export function setElements(message: Message): readonly SetElement[] {
  const list = new Attributes(message.body, NFGENMSG).nested(NFTA_SET_ELEM_LIST.elements)
  return (list?.all(NFTA_LIST_ELEM) ?? []).map((bytes) => elementOf(new Attributes(Buffer.from(bytes))))
}

function elementOf(element: Attributes): SetElement {
  const flags = element.u32BigEndian(NFTA_SET_ELEM.flags) ?? 0
  const keyEnd = element.nested(NFTA_SET_ELEM.keyEnd)?.bytes(NFTA_DATA.value)
  const verdict = element.nested(NFTA_SET_ELEM.data)?.nested(NFTA_DATA.verdict)
  return {
    key: element.nested(NFTA_SET_ELEM.key)?.bytes(NFTA_DATA.value) ?? new Uint8Array(0),
    end: (flags & NFT_SET_ELEM.intervalEnd) !== 0,
    catchall: (flags & NFT_SET_ELEM.catchall) !== 0,
    ...(keyEnd === undefined ? {} : { keyEnd }),
    ...(verdict === undefined ? {} : { verdict })
  }
}

/** Elements in the order of their keys, each with its value as JSON. */
export function elementValues(
  loaded: Loaded,
  elements: readonly SetElement[]
): readonly (readonly [value: unknown, element: SetElement])[] {
  const sorted = elements.toSorted((a, b) => Buffer.compare(a.key, b.key) || Number(b.end) - Number(a.end))
  return sorted.flatMap((element, at) => {
    if (element.end) return []
    if (element.catchall) return [['*', element] as const]
    return [[intervalValue(loaded, sorted, at), element] as const]
  })
}

/** An interval reaches up to the octets before the next element; without one to the end. */
function intervalValue(loaded: Loaded, sorted: readonly SetElement[], at: number): unknown {
  const element = sorted[at] as SetElement
  const ofInterval = sorted.some(({ end }) => end)
  if (loaded.form !== 'address') return valueJson(loaded, element.key)
  if (element.keyEnd !== undefined) return rangeJson(loaded, element.key, element.keyEnd)
  if (!ofInterval) return valueJson(loaded, element.key)
  const next = sorted[at + 1]
  return rangeJson(loaded, element.key, next === undefined ? element.key.map(() => 255) : before(next.key))
}

/** The number before this one, octets in network order. */
function before(bytes: Uint8Array): Uint8Array {
  const result = Uint8Array.from(bytes)
  for (let at = result.length - 1; at >= 0; at--) {
    result[at] = ((result[at] ?? 0) - 1) & 255
    if (result[at] !== 255) break
  }
  return result
}
