// What weftd and the proxy say to each other: one JSON text a line. The proxy begins with what it has, so that a
// restarted weftd finds it again.
import { formatIp, formatPrefix, type Ip, network, parseIp, parsePrefix } from '../../ipam/address.ts'
import { type Counters, noCounters } from './counters.ts'

/** Of the lines themselves; the version of Weft is another matter. */
export const PROTOCOL = 1
/** Octets of the longest line: 65,536 peers have about 3 MB. */
export const LONGEST_LINE = 16 << 20

export type Socket = { readonly device: string; readonly local: Ip; readonly port: number }
export type Peers = ReadonlyMap<string, string>

/** `fault`: why it carries nothing. `lacks`: offloads that this kernel does not have. */
export type Status = { readonly carries: boolean; readonly fault?: string; readonly lacks: readonly string[] }

export type Hello = Status & {
  readonly protocol: number
  readonly version: string
  readonly pid: number
  readonly socket: Socket | undefined
  /** Public addresses by subnet, as text. */
  readonly peers: Peers
}

/** `socket`: `null` closes it. `end`: the proxy ends. */
export type Request = {
  readonly socket?: Socket | null
  readonly put?: Peers
  readonly remove?: readonly string[]
  readonly counters?: true
  readonly end?: true
}

export type Answer = { readonly error?: string; readonly counters?: Counters }

type Fields = Readonly<Record<string, unknown>>

/** Errors: Error, saying what is wrong. */
function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${what} is no object`)
  return value as Fields
}

function parsed(line: string): Fields {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw new Error('the line is no JSON text')
  }
  return fieldsOf(value, 'the line')
}

const isDeviceName = (value: unknown): value is string =>
  typeof value === 'string' && /^[^\s/:]{1,15}$/.test(value) && value !== '.' && value !== '..'

function socketOf(value: unknown): Socket {
  const { device, local, port } = fieldsOf(value, 'socket')
  const address = typeof local === 'string' ? parseIp(local) : undefined
  if (!isDeviceName(device)) throw new Error('socket.device is no name of a device')
  if (address?.family !== 4) throw new Error('socket.local is no IPv4 address')
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535)
    throw new Error('socket.port is no port')
  return { device, local: address, port }
}

/** The subnet in its usual spelling. */
function subnetOf(value: unknown): string {
  const prefix = typeof value === 'string' ? parsePrefix(value) : undefined
  if (prefix?.ip.family !== 4) throw new Error('a subnet is no IPv4 prefix')
  return formatPrefix(network(prefix))
}

function peersOf(value: unknown): Peers {
  return new Map(
    Object.entries(fieldsOf(value, 'the peers')).map(([subnet, to]) => {
      const address = typeof to === 'string' ? parseIp(to) : undefined
      if (address?.family !== 4) throw new Error(`the address of ${JSON.stringify(subnet)} is no IPv4 address`)
      return [subnetOf(subnet), formatIp(address)]
    })
  )
}

/** Errors: Error, saying what is wrong with it. */
export function parseRequest(line: string): Request {
  const { socket, put, remove, counters, end } = parsed(line)
  if (remove !== undefined && !Array.isArray(remove)) throw new Error('remove is no list')
  return {
    ...(socket !== undefined && { socket: socket === null ? null : socketOf(socket) }),
    ...(put !== undefined && { put: peersOf(put) }),
    ...(remove !== undefined && { remove: remove.map(subnetOf) }),
    ...(counters === true && { counters }),
    ...(end === true && { end })
  }
}

const socketText = ({ device, local, port }: Socket) => ({ device, local: formatIp(local), port })

export const requestText = ({ socket, put, remove, counters, end }: Request): string =>
  `${JSON.stringify({
    ...(socket !== undefined && { socket: socket && socketText(socket) }),
    ...(put !== undefined && { put: Object.fromEntries(put) }),
    ...{ remove, counters, end }
  })}\n`

export const helloText = ({ socket, peers, ...hello }: Hello): string =>
  `${JSON.stringify({ hello: { ...hello, socket: socket ? socketText(socket) : null, peers: Object.fromEntries(peers) } })}\n`

export const statusText = (status: Status): string => `${JSON.stringify({ status })}\n`

export const answerText = (answer: Answer): string => `${JSON.stringify({ answer })}\n`

export type FromProxy =
  | { readonly kind: 'hello'; readonly hello: Hello }
  | { readonly kind: 'status'; readonly status: Status }
  | { readonly kind: 'answer'; readonly answer: Answer }

/** A line of the proxy. Errors: Error, saying what is wrong with it. */
export function parseFromProxy(line: string): FromProxy {
  const { hello, status, answer } = parsed(line)
  if (hello !== undefined) return { kind: 'hello', hello: helloOf(fieldsOf(hello, 'hello')) }
  if (status !== undefined) return { kind: 'status', status: statusOf(fieldsOf(status, 'status')) }
  const { error, counters } = fieldsOf(answer, 'answer')
  return {
    kind: 'answer',
    answer: {
      ...(typeof error === 'string' && { error }),
      ...(counters !== undefined && { counters: countersOf(fieldsOf(counters, 'counters')) })
    }
  }
}

function helloOf(fields: Fields): Hello {
  const { protocol, version, pid, socket, peers } = fields
  if (typeof protocol !== 'number' || typeof version !== 'string' || typeof pid !== 'number')
    throw new Error('hello has no protocol, version or pid')
  return {
    ...{ protocol, version, pid, ...statusOf(fields) },
    socket: socket === null || socket === undefined ? undefined : socketOf(socket),
    peers: peersOf(peers)
  }
}

function statusOf({ carries, fault, lacks }: Fields): Status {
  return {
    carries: carries === true,
    ...(typeof fault === 'string' && { fault }),
    lacks: Array.isArray(lacks) ? lacks.filter((each) => typeof each === 'string') : []
  }
}

function countersOf(fields: Fields): Counters {
  const counters = noCounters()
  for (const name of Object.keys(counters) as (keyof Counters)[]) {
    const value = fields[name]
    if (typeof value === 'number') counters[name] = value
  }
  return counters
}
