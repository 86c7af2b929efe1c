// Cutting up what the API server sends: whole answers, lines or frames of a watch, and how long it wants to be left alone. No answer may fill our memory.
import type { Json, JsonObject } from '../config/json.ts'

/** The longest Retry-After that is obeyed, in milliseconds: a wrong clock must not silence us for a day. */
const LONGEST_STAY = 300_000
/** Bytes of one answer or one event: a node has at most 1.5 MB in etcd. */
const LARGEST = 64 << 20

/** RFC 9110, 10.2.3: seconds or a date; in milliseconds, 0 when absent or not understood. */
export function retryAfter(header: string | undefined, now: number): number {
  if (header === undefined) return 0
  const wait = /^\d+$/.test(header.trim()) ? 1000 * Number(header) : Date.parse(header) - now
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), LONGEST_STAY) : 0
}

/** All of an answer. Errors: one that is too long, and whatever breaks the connection. */
export async function wholeBody(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = []
  let size = 0
  for await (const chunk of chunks) {
    size += chunk.length
    if (size > LARGEST) throw new Error(`an answer of more than ${LARGEST >> 20} MiB`)
    all.push(chunk)
  }
  return Buffer.concat(all)
}

/** JSON objects that end in a newline each, however the network cuts them. Errors: a line that is none. */
export async function* jsonLines(chunks: AsyncIterable<Buffer>): AsyncGenerator<JsonObject, void> {
  let begun: Buffer[] = []
  let size = 0
  for await (const chunk of chunks) {
    let from = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, from)) {
      begun.push(chunk.subarray(from, end))
      const text = Buffer.concat(begun).toString()
      begun = []
      size = 0
      from = end + 1
      if (text.trim() === '') continue
      const object = parseObject(text)
      if (object === undefined) throw new Error(`the API server sent a line that is no JSON object: ${shorten(text)}`)
      yield object
    }
    if (from < chunk.length) begun.push(chunk.subarray(from))
    size += chunk.length - from
    if (size > LARGEST) throw new Error(`an event of more than ${LARGEST >> 20} MiB`)
  }
}

/** The frames of a protobuf stream, each behind its length in four bytes, however the network cuts them. Errors: a frame that is too long. */
export async function* frames(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void> {
  let begun: Buffer = Buffer.alloc(0)
  for await (const chunk of chunks) {
    begun = begun.length === 0 ? chunk : Buffer.concat([begun, chunk])
    while (begun.length >= 4) {
      const length = begun.readUInt32BE(0)
      if (length > LARGEST) throw new Error(`an event of more than ${LARGEST >> 20} MiB`)
      if (begun.length < 4 + length) break
      yield begun.subarray(4, 4 + length)
      begun = begun.subarray(4 + length)
    }
  }
}

/** A JSON object, or `undefined` for everything else. */
export function parseObject(text: string): JsonObject | undefined {
  try {
    const value = JSON.parse(text) as Json
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined
  } catch {
    return undefined
  }
}

/** For messages: a page of HTML as one line. */
export const shorten = (text: string): string => text.trim().replaceAll(/\s+/g, ' ').slice(0, 200)
