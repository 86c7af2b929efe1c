// Sends ICMP echo requests from the host or from inside pods, and collects the answers for a second at most.
import { closeSync } from 'node:fs'
import { type Family, type Ip, ipBytes, ipFromBytes } from '../../ipam/address.ts'
import { answerSocket, sendIcmp } from '../os/echo-socket.ts'
import { CallFailed, close, receiveNow } from '../os/libc.ts'
import { whileReadable } from '../os/readable.ts'
import type { Echo, EchoOutcome } from '../state/inspection.ts'
import { inside, openNamespace } from './namespace.ts'

/** Milliseconds for all answers. */
const WAIT = 1_000
/** Datagrams that are read in one turn of the event loop. */
const BATCH = 64
const PAYLOAD = Buffer.from('weftctl why: one packet to find out what its way is, not repeated')

/** What is sent, as `Echo`, and what came back so far. */
type Sent = { readonly echo: Echo; readonly at: number; outcome: Answer }
export type Answer = Pick<EchoOutcome, 'unsent' | 'answeredUs' | 'refusal'>

/**
 * Sends the requests with this ICMP identifier, numbered from 1; resolves with their answers once all have come, or
 * after a second. `hopeless` gets a function to say that no answer to a request will come. Never rejects.
 */
export async function sendEchoes(
  echoes: readonly Echo[],
  id: number,
  hopeless: (giveUp: (number: number) => void) => void = () => undefined,
  waitMs = WAIT
): Promise<readonly Answer[]> {
  const sent = echoes.map((echo): Sent => ({ echo, at: performance.now(), outcome: {} }))
  const { promise, resolve } = Promise.withResolvers<void>()
  using opened = new DisposableStack()
  const lost = new Set<Sent | undefined>()
  const isOver = () => sent.every((one) => lost.has(one) || Object.keys(one.outcome).length > 0)
  hopeless((number) => {
    lost.add(sent[number - 1])
    if (isOver()) resolve()
  })
  for (const [at, one] of sent.entries()) {
    try {
      sendOne(one, id, at + 1, opened, () => isOver() && resolve())
    } catch (error) {
      one.outcome = { unsent: error instanceof CallFailed ? `${error.call}: ${error.errnoName}` : String(error) }
    }
  }
  const timer = setTimeout(resolve, waitMs)
  if (isOver()) resolve()
  await promise
  clearTimeout(timer)
  return sent.map(({ outcome }) => outcome)
}

/** A socket for the answer first, in the same namespace. */
function sendOne(one: Sent, id: number, number: number, opened: DisposableStack, heard: () => void): void {
  const { destination, source, namespace } = one.echo
  const { family } = destination
  const send = (): void => {
    const fd = answerSocket(family)
    opened.defer(() => close(fd))
    const poll = whileReadable(fd, () => readAnswers(fd, one, id, number, heard))
    opened.defer(() => poll[Symbol.dispose]())
    const message = echoRequest(family, id, number)
    sendIcmp(family, message, ipBytes(destination), source && ipBytes(source))
  }
  if (namespace === undefined) {
    send()
    return
  }
  const file = openNamespace(namespace, true)
  try {
    inside(file, send)
  } finally {
    closeSync(file)
  }
}

function readAnswers(fd: number, one: Sent, id: number, number: number, heard: () => void): void {
  const buffer = Buffer.alloc(2_048)
  for (let count = 0; count < BATCH; count++) {
    let length: number | undefined
    try {
      length = receiveNow(fd, buffer)
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error
      continue
    }
    if (length === undefined) return
    const { family } = one.echo.destination
    const answer = answerIn(family, buffer.subarray(0, length), id, number)
    if (answer === undefined || 'answeredUs' in one.outcome) continue
    one.outcome =
      answer.kind === 'reply' ? { answeredUs: Math.round((performance.now() - one.at) * 1_000) } : answer.why
    heard()
  }
}

/** RFC 792, RFC 4443; the kernel sets the checksum of ICMPv6. */
export function echoRequest(family: Family, id: number, number: number): Buffer {
  const message = Buffer.concat([Buffer.alloc(8), PAYLOAD])
  message[0] = family === 4 ? 8 : 128
  message.writeUInt16BE(id, 4)
  message.writeUInt16BE(number, 6)
  if (family === 4) message.writeUInt16BE(checksum(message), 2)
  return message
}

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}

const UNREACHABLE: Readonly<Record<Family, readonly string[]>> = {
  4: ['network unreachable', 'host unreachable', 'protocol unreachable', 'port unreachable', 'fragmentation needed'],
  6: ['no route', 'administratively prohibited', 'beyond scope of source', 'address unreachable', 'port unreachable']
}
/** Codes 9, 10 and 13 of IPv4 are the three ways of saying that a firewall refused it. */
const PROHIBITED = [9, 10, 13]

type Heard =
  | { readonly kind: 'reply' }
  | { readonly kind: 'error'; readonly why: { readonly refusal: { readonly from: Ip; readonly text: string } } }

/**
 * What a received message says of request `number`; `undefined`: it is about another. IPv4 comes with its IP header,
 * IPv6 without: an ICMPv6 error then names no sender, and `::` stands for it.
 */
export function answerIn(family: Family, bytes: Buffer, id: number, number: number): Heard | undefined {
  const header = family === 4 ? ((bytes[0] ?? 0) & 0x0f) * 4 : 0
  const icmp = bytes.subarray(header)
  if (icmp.length < 8) return undefined
  const isOurs = (at: Buffer): boolean => at.length >= 8 && at.readUInt16BE(4) === id && at.readUInt16BE(6) === number
  const [type = -1, code = -1] = icmp
  if (type === (family === 4 ? 0 : 129)) return isOurs(icmp) ? { kind: 'reply' } : undefined
  // An error repeats the beginning of the packet that it is about.
  const inner = icmp.subarray(8)
  const innerHeader = family === 4 ? ((inner[0] ?? 0) & 0x0f) * 4 : 40
  const protocol = inner[family === 4 ? 9 : 6]
  if (protocol !== (family === 4 ? 1 : 58) || !isOurs(inner.subarray(innerHeader))) return undefined
  const from = (family === 4 ? ipFromBytes(bytes.subarray(12, 16)) : undefined) ?? { family, value: 0n }
  return { kind: 'error', why: { refusal: { from, text: errorText(family, type, code) } } }
}

function errorText(family: Family, type: number, code: number): string {
  if (type === (family === 4 ? 11 : 3)) return 'time to live exceeded: the packet runs in a circle'
  if (family === 6 && type === 2) return 'packet too big'
  if (family === 4 && PROHIBITED.includes(code)) return 'administratively prohibited'
  return UNREACHABLE[family][code] ?? `unreachable, code ${code}`
}
