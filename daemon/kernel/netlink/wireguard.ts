// The messages of the generic netlink family "wireguard" (<linux/wireguard.h>): a device with its peers, read and
// changed.
import { ipBytes, ipFromBytes, type Prefix } from '../../../ipam/address.ts'
import type { Endpoint } from '../../state/wireguard.ts'
import type { DeviceChange, DeviceState, PeerChange, PeerState } from '../../state/wireguard-port.ts'
import { type GenericFamily, genericAttributes, genericRequest } from './generic.ts'
import { Attributes, MalformedMessage, type Message, type MessageWriter } from './message.ts'
import { AF_INET6, afOf } from './uapi.ts'

export const WG_FAMILY = 'wireguard'

const COMMAND = { getDevice: 0, setDevice: 1 } as const
const DEVICE = { ifname: 2, privateKey: 3, publicKey: 4, listenPort: 6, peers: 8 } as const
const PEER = {
  ...{ publicKey: 1, presharedKey: 2, flags: 3, endpoint: 4, keepalive: 5 },
  ...{ lastHandshake: 6, received: 7, sent: 8, allowedIps: 9 }
} as const
const ALLOWED_IP = { family: 1, address: 2, length: 3 } as const
const PEER_F = { remove: 1, replaceAllowedIps: 2, updateOnly: 4 } as const
const KEY = 32
const NO_KEY = new Uint8Array(KEY)
/** Elements of a nested list have a number, which the kernel ignores. */
const ELEMENT = 0
/** Octets of peers in one message: the length of an attribute has 16 bits. */
const MOST_OCTETS = 60_000
/** Octets of a peer without addresses, and of each of these, at most. */
const OCTETS = { peer: 148, address: 40 } as const
/** Addresses of one peer in one message. */
const MOST_ADDRESSES = 1_000

/** A dump of one device: one message, or more where its peers need them. */
export const getDevice = (family: GenericFamily, device: string): Buffer =>
  genericRequest(family, COMMAND.getDevice).text(DEVICE.ifname, device).done()

/** The messages that make these changes, in their order. */
export function setDevice(family: GenericFamily, change: DeviceChange): readonly Buffer[] {
  const { device, privateKey, listenPort, peers = [] } = change
  const message = (own: boolean, some: readonly PeerChange[]): Buffer => {
    const writer = genericRequest(family, COMMAND.setDevice).text(DEVICE.ifname, device)
    if (own && privateKey !== undefined) writer.bytes(DEVICE.privateKey, keyBytes(privateKey.value))
    if (own && listenPort !== undefined) writer.bytes(DEVICE.listenPort, u16(listenPort))
    if (some.length > 0)
      writer.nest(DEVICE.peers, (list) => {
        for (const peer of some) list.nest(ELEMENT, (nested) => writePeer(nested, peer))
      })
    return writer.done()
  }
  return grouped(peers.flatMap(inParts)).map((group, at) => message(at === 0, group))
}

/** `continues`: more addresses of a peer that is there. */
type Part = PeerChange & { readonly continues?: true }

function inParts(peer: PeerChange): readonly Part[] {
  const { publicKey, allowedIps = [] } = peer
  if (allowedIps.length <= MOST_ADDRESSES) return [peer]
  const more: Part[] = []
  for (let at = MOST_ADDRESSES; at < allowedIps.length; at += MOST_ADDRESSES)
    more.push({ publicKey, allowedIps: allowedIps.slice(at, at + MOST_ADDRESSES), continues: true })
  return [{ ...peer, allowedIps: allowedIps.slice(0, MOST_ADDRESSES) }, ...more]
}

/** One group a message; a first one without peers for what is the device's own. */
function grouped(parts: readonly Part[]): readonly (readonly Part[])[] {
  const groups: Part[][] = [[]]
  let octets = 0
  for (const part of parts) {
    const size = OCTETS.peer + OCTETS.address * (part.allowedIps?.length ?? 0)
    if (octets + size > MOST_OCTETS) {
      groups.push([])
      octets = 0
    }
    groups.at(-1)?.push(part)
    octets += size
  }
  return groups
}

function writePeer(writer: MessageWriter, peer: Part): void {
  writer.bytes(PEER.publicKey, keyBytes(peer.publicKey))
  if (peer.remove === true) {
    writer.u32(PEER.flags, PEER_F.remove)
    return
  }
  const { presharedKey, endpoint, keepalive, allowedIps } = peer
  if (presharedKey !== undefined)
    writer.bytes(PEER.presharedKey, presharedKey === null ? NO_KEY : keyBytes(presharedKey.value))
  if (allowedIps !== undefined)
    writer.u32(PEER.flags, peer.continues === true ? PEER_F.updateOnly : PEER_F.replaceAllowedIps)
  if (endpoint !== undefined) writer.bytes(PEER.endpoint, socketAddress(endpoint))
  if (keepalive !== undefined) writer.bytes(PEER.keepalive, u16(keepalive))
  if (allowedIps !== undefined)
    writer.nest(PEER.allowedIps, (list) => {
      for (const { ip, length } of allowedIps)
        list.nest(ELEMENT, (nested) =>
          nested
            .bytes(ALLOWED_IP.family, u16(afOf(ip.family)))
            .bytes(ALLOWED_IP.address, ipBytes(ip))
            .u8(ALLOWED_IP.length, length)
        )
    })
}

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 0xff, value >> 8)

/** Errors: RangeError for what is no key. */
function keyBytes(key: string): Uint8Array {
  const bytes = Buffer.from(key, 'base64')
  if (bytes.length !== KEY) throw new RangeError('a WireGuard key has 32 octets')
  return bytes
}

/** struct sockaddr_in or sockaddr_in6. */
function socketAddress({ ip, port }: Endpoint): Uint8Array {
  const bytes = Buffer.alloc(ip.family === 4 ? 16 : 28)
  bytes.writeUInt16LE(afOf(ip.family), 0)
  bytes.writeUInt16BE(port, 2)
  bytes.set(ipBytes(ip), ip.family === 4 ? 4 : 8)
  return bytes
}

function endpointIn(bytes: Buffer | undefined): Endpoint | undefined {
  if (bytes === undefined || bytes.length < 16) return undefined
  const is6 = bytes.readUInt16LE(0) === AF_INET6
  if (is6 && bytes.length < 24) throw new MalformedMessage(`an IPv6 socket address of ${bytes.length} octets`)
  const ip = ipFromBytes(is6 ? bytes.subarray(8, 24) : bytes.subarray(4, 8))
  return ip && { ip, port: bytes.readUInt16BE(2) }
}

/**
 * The device of a dump. A peer whose addresses did not fit a message continues in the next one, under the same key.
 * Errors: MalformedMessage.
 */
export function deviceIn(messages: readonly Message[]): DeviceState {
  let [publicKey, listenPort] = ['', 0]
  const peers = new Map<string, PeerState>()
  for (const message of messages) {
    const device = genericAttributes(message)
    publicKey = device.bytes(DEVICE.publicKey)?.toString('base64') ?? publicKey
    listenPort = number16(device.bytes(DEVICE.listenPort)) ?? listenPort
    for (const bytes of device.nested(DEVICE.peers)?.all(ELEMENT) ?? []) {
      const peer = peerIn(new Attributes(bytes))
      const begun = peers.get(peer.publicKey)
      peers.set(peer.publicKey, begun ? { ...begun, allowedIps: [...begun.allowedIps, ...peer.allowedIps] } : peer)
    }
  }
  return { publicKey, listenPort, peers: [...peers.values()] }
}

const number16 = (bytes: Buffer | undefined): number | undefined =>
  bytes === undefined || bytes.length < 2 ? undefined : bytes.readUInt16LE(0)

const number64 = (bytes: Buffer | undefined, at = 0): number =>
  bytes === undefined || bytes.length < at + 8 ? 0 : Number(bytes.readBigUInt64LE(at))

function peerIn(attributes: Attributes): PeerState {
  const key = attributes.bytes(PEER.publicKey)
  if (key?.length !== KEY) throw new MalformedMessage('a WireGuard peer without its key')
  const shared = attributes.bytes(PEER.presharedKey)
  const endpoint = endpointIn(attributes.bytes(PEER.endpoint))
  const handshake = attributes.bytes(PEER.lastHandshake)
  return {
    publicKey: key.toString('base64'),
    ...(endpoint && { endpoint }),
    presharedKey: shared === undefined || shared.every((octet) => octet === 0) ? undefined : shared.toString('base64'),
    keepalive: number16(attributes.bytes(PEER.keepalive)) ?? 0,
    allowedIps: attributes.nested(PEER.allowedIps)?.all(ELEMENT).map(allowedIpIn) ?? [],
    traffic: {
      // Two numbers of 64 bits: seconds and nanoseconds.
      handshakeAt: Math.round(number64(handshake) * 1e3 + number64(handshake, 8) / 1e6),
      sent: number64(attributes.bytes(PEER.sent)),
      received: number64(attributes.bytes(PEER.received))
    }
  }
}

function allowedIpIn(bytes: Buffer): Prefix {
  const attributes = new Attributes(bytes)
  const ip = ipFromBytes(attributes.bytes(ALLOWED_IP.address) ?? Buffer.alloc(0))
  const length = attributes.u8(ALLOWED_IP.length)
  if (ip === undefined || length === undefined) throw new MalformedMessage('an allowed address without its octets')
  return { ip, length }
}
