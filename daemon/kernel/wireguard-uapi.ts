// Speaks to wireguard-go by its unix socket: lines `key=value`, keys in hex. What it answers is read with bounds.
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { formatPrefix, parseIp, parsePrefix } from '../../ipam/address.ts'
import { toError, WeftError } from '../base/error.ts'
import { shortened } from '../base/printable.ts'
import { publicKeyOf } from '../base/x25519.ts'
import { type Endpoint, endpointText } from '../state/wireguard.ts'
import type { DeviceChange, DeviceState, PeerChange, PeerState, WireguardPort } from '../state/wireguard-port.ts'

/** Octets of an answer: some 400 a peer, and a node has one for each other node. */
const LONGEST = 16 << 20
/** Milliseconds for an answer. */
const PATIENCE = 5_000

const uapiSocket = (device: string): string => `/run/wireguard/${device}.sock`

/** The answer's number from errno(3) was not 0. */
export class UapiRefused extends Error {
  readonly errno: number

  constructor(errno: number) {
    super(`wireguard-go answered errno ${errno}`)
    this.errno = errno
  }
}

const malformed = (what: string): WeftError =>
  new WeftError(
    'WIREGUARD_ANSWER',
    `the answer of wireguard-go can't be used: ${what}`,
    'check with `wg show` what the device says, and update wireguard-go'
  )

const hexOf = (key: string): string => Buffer.from(key, 'base64').toString('hex')

function keyIn(hex: string): string {
  if (!/^[0-9a-f]{64}$/.test(hex)) throw malformed('a key that is not 32 octets in hex')
  return Buffer.from(hex, 'hex').toString('base64')
}

/** The request that makes a change. */
export function setText({ privateKey, listenPort, peers = [] }: DeviceChange): string {
  const lines = ['set=1']
  if (privateKey !== undefined) lines.push(`private_key=${hexOf(privateKey.value)}`)
  if (listenPort !== undefined) lines.push(`listen_port=${listenPort}`)
  for (const peer of peers) lines.push(...peerLines(peer))
  return `${lines.join('\n')}\n\n`
}

function peerLines({ publicKey, remove, ...peer }: PeerChange): readonly string[] {
  const lines = [`public_key=${hexOf(publicKey)}`]
  if (remove === true) return [...lines, 'remove=true']
  const { presharedKey, endpoint, keepalive, allowedIps } = peer
  if (presharedKey !== undefined)
    lines.push(`preshared_key=${presharedKey === null ? '0'.repeat(64) : hexOf(presharedKey.value)}`)
  if (endpoint !== undefined) lines.push(`endpoint=${endpointText(endpoint)}`)
  if (keepalive !== undefined) lines.push(`persistent_keepalive_interval=${keepalive}`)
  if (allowedIps !== undefined) lines.push('replace_allowed_ips=true')
  return [...lines, ...(allowedIps ?? []).map((prefix) => `allowed_ip=${formatPrefix(prefix)}`)]
}

type Writable<T> = { -readonly [K in keyof T]: T[K] }

/**
 * The device in the answer to `get=1`, whose public key follows from the private one. Unknown lines
 * are ignored. Errors: WIREGUARD_ANSWER; UapiRefused.
 */
export function deviceInText(text: string): DeviceState {
  let [publicKey, listenPort, seconds] = ['', 0, 0]
  const peers: Writable<PeerState>[] = []
  for (const [name, value] of linesIn(text)) {
    const peer = peers.at(-1)
    if (name === 'public_key') {
      const traffic = { handshakeAt: 0, sent: 0, received: 0 }
      peers.push({ publicKey: keyIn(value), presharedKey: undefined, keepalive: 0, allowedIps: [], traffic })
    } else if (name === 'private_key') publicKey = publicKeyOf(keyIn(value))
    else if (name === 'listen_port') listenPort = numberIn(name, value, 65_535)
    else if (peer !== undefined) {
      if (name === 'last_handshake_time_sec') seconds = numberIn(name, value)
      readPeerLine(peer, name, value, seconds)
    }
  }
  return { publicKey, listenPort, peers }
}

function readPeerLine(peer: Writable<PeerState>, name: string, value: string, seconds: number): void {
  const { traffic } = peer
  if (name === 'preshared_key') peer.presharedKey = /^0+$/.test(value) ? undefined : keyIn(value)
  else if (name === 'endpoint') peer.endpoint = endpointIn(value)
  else if (name === 'persistent_keepalive_interval') peer.keepalive = numberIn(name, value, 65_535)
  else if (name === 'allowed_ip') peer.allowedIps = [...peer.allowedIps, prefixIn(value)]
  else if (name === 'tx_bytes') peer.traffic = { ...traffic, sent: numberIn(name, value) }
  else if (name === 'rx_bytes') peer.traffic = { ...traffic, received: numberIn(name, value) }
  else if (name === 'last_handshake_time_nsec')
    peer.traffic = { ...traffic, handshakeAt: Math.round(seconds * 1e3 + numberIn(name, value, 999_999_999) / 1e6) }
}

function* linesIn(text: string): Generator<readonly [name: string, value: string]> {
  let isComplete = false
  for (const line of text.split('\n')) {
    if (line === '') continue
    const at = line.indexOf('=')
    if (at <= 0) throw malformed(`a line without a key: ${shortened(line, 40)}`)
    const [name, value] = [line.slice(0, at), line.slice(at + 1)]
    if (name === 'errno') {
      const errno = numberIn(name, value, 4_095)
      if (errno !== 0) throw new UapiRefused(errno)
      isComplete = true
    } else yield [name, value]
  }
  if (!isComplete) throw malformed('it ends before its end')
}

function numberIn(name: string, value: string, most = Number.MAX_SAFE_INTEGER): number {
  const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN
  if (!(number <= most)) throw malformed(`${shortened(name, 40)} is ${shortened(value, 40)}`)
  return number
}

function endpointIn(text: string): Endpoint {
  const found = /^(?:\[([^\]%]+)(?:%[^\]]*)?\]|([\d.]+)):(\d{1,5})$/.exec(text)
  const ip = parseIp(found?.[1] ?? found?.[2] ?? '')
  if (ip === undefined) throw malformed(`the endpoint ${shortened(text, 60)}`)
  return { ip, port: numberIn('a port', found?.[3] ?? '', 65_535) }
}

function prefixIn(text: string) {
  const prefix = parsePrefix(text)
  if (prefix === undefined) throw malformed(`the allowed address ${shortened(text, 60)}`)
  return prefix
}

/** Sends a request, and reads up to the empty line that ends the answer. Errors: WIREGUARD_ANSWER; of node:net. */
function ask(path: string, request: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const pieces: Buffer[] = []
  let octets = 0
  const socket = connect(path)
  const end = (error?: Error) => {
    socket.destroy()
    if (error !== undefined) reject(error)
    else resolve(Buffer.concat(pieces).toString('latin1'))
  }
  socket.setTimeout(PATIENCE, () => end(malformed(`none within ${PATIENCE / 1000} seconds`)))
  socket.on('connect', () => socket.write(request))
  socket.on('error', end)
  socket.on('end', () => end())
  socket.on('data', (piece: Buffer) => {
    octets += piece.length
    if (octets > LONGEST) return end(malformed(`it has more than ${LONGEST} octets`))
    pieces.push(piece)
    const last = pieces.length > 1 ? Buffer.concat(pieces.slice(-2)) : piece
    if (last.subarray(-2).toString('latin1') === '\n\n') end()
  })
  return promise
}

/** wireguard-go's devices: those that have a socket on which a process listens. */
export const userspacePort: WireguardPort = {
  read: async (device) => {
    const path = uapiSocket(device)
    if (!existsSync(path)) return undefined
    try {
      return deviceInText(await ask(path, 'get=1\n\n'))
    } catch (error) {
      const { code } = toError(error) as NodeJS.ErrnoException
      if (code === 'ECONNREFUSED' || code === 'ENOENT') return undefined
      throw error
    }
  },
  change: async (change) => {
    for (const _ of linesIn(await ask(uapiSocket(change.device), setText(change))));
  }
}
