// Reads HTTP bodies of the API server, with bounds on memory: whole bodies, JSON lines, protobuf frames; and the
// Retry-After header.
import type { Json, JsonObject } from '../config/json.ts'

/** The longest Retry-After that is honoured, in milliseconds: with a wrong clock a date can be a day away. */
const LONGEST_WAIT = 300_000
/** Bytes of one body or event: an object has at most 1.5 MB in etcd. */
const LARGEST = 64 << 20

/** RFC 9110, 10.2.3: seconds or a date. In milliseconds; 0 when absent or malformed. */
export function retryAfter(header: string | undefined, now: number): number {
  if (header === undefined) return 0
  const wait = /^\d+$/.test(header.trim()) ? 1000 * Number(header) : Date.parse(header) - now
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), LONGEST_WAIT) : 0
}

/** A whole body. Errors: too long; those of the connection. */
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

/** Newline-delimited JSON objects, however they are split into chunks. Errors: a line that is not a JSON object. */
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

/**
 * Frames of a protobuf stream, each preceded by its length in four bytes, however they are split into chunks. Errors: a
 * frame that is too long.
 */
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

/** A JSON object; `undefined` for anything else. */
export function parseObject(text: string): JsonObject | undefined {
  try {
    const value = JSON.parse(text) as Json
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined
  } catch {
    return undefined
  }
}

/** An HTML page as one line, for messages. */
export const shorten = (text: string): string => text.trim().replaceAll(/\s+/g, ' ').slice(0, 200)
