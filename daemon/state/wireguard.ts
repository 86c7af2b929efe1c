// The types of WireGuard in kernel state: a device's own key and port, and its peers; keys are base64 as `wg` prints
// them.
import { formatIp, formatPrefix, type Ip, type Prefix } from '../../ipam/address.ts'

/** Why it is desired, as for every object (object.ts). */
type Wanted = { readonly because?: string }

/** A value that is compared and written to the kernel, and that neither JSON nor a template shows. */
export class Secret {
  readonly value: string

  constructor(value: string) {
    this.value = value
  }

  toJSON(): string {
    return '(secret)'
  }

  toString(): string {
    return '(secret)'
  }
}

/** What the device itself is configured with; a setting that exists as long as the device. */
export type WgDevice = Wanted & {
  readonly kind: 'wg-device'
  readonly device: string
  /** By which its private key is compared. */
  readonly publicKey: string
  /** Only in desired ones; not read back. */
  readonly privateKey?: Secret
  /** UDP, 0 while it has none. */
  readonly listenPort: number
}

export type Endpoint = { readonly ip: Ip; readonly port: number }

export type WgPeer = Wanted & {
  readonly kind: 'wg-peer'
  readonly device: string
  readonly publicKey: string
  /** `undefined` only in observed ones: none is known. */
  readonly endpoint?: Endpoint
  /** The destinations that are sent to it, and the sources that it may send. Sorted (`sortedPrefixes`). */
  readonly allowedIps: readonly Prefix[]
  /** `null`: none. */
  readonly presharedKey?: Secret | null
  /** Seconds; 0: none are sent. */
  readonly keepalive?: number
  /** Only observed. */
  readonly traffic?: WgTraffic
  /**
   * Only observed: the endpoint is where the peer was just heard, which counts more than what its lease says. Set where
   * it is not known what it was configured with.
   */
  readonly isHeard?: true
}

/** Milliseconds since 1970 (0: never), and octets. Handshakes are counted as sent. */
export type WgTraffic = { readonly handshakeAt: number; readonly sent: number; readonly received: number }

/** After this many milliseconds without a handshake a session is over (REJECT_AFTER_TIME of the protocol). */
export const SESSION_MS = 180_000

/** The devices of the wireguard backend: Weft's own, and flanneld's. Each with the one for IPv6 in mode "separate". */
export const WG_NAMES = {
  own: { 4: 'weft-wg', 6: 'weft-wg-v6' },
  flanneld: { 4: 'flannel-wg', 6: 'flannel-wg-v6' }
} as const

/**
 * Where the kernel has no WireGuard, wireguard-go serves a TUN device. Nothing in its link says so, hence the name.
 */
export const isWgName = (name: string): boolean => /^(weft|flannel)-wg(-v6)?$/.test(name)

/** 32 octets in base64, whose last digit carries four bits only. */
export const isWgKey = (text: string): boolean => /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text)

/** In one order, whichever the kernel lists them in. */
export const sortedPrefixes = (prefixes: readonly Prefix[]): readonly Prefix[] =>
  [...prefixes].sort((a, b) => {
    const [one, other] = [formatPrefix(a), formatPrefix(b)]
    return a.ip.family - b.ip.family || (one < other ? -1 : one > other ? 1 : 0)
  })

export const endpointText = ({ ip, port }: Endpoint): string =>
  ip.family === 4 ? `${formatIp(ip)}:${port}` : `[${formatIp(ip)}]:${port}`

/** In the syntax of wg(8), without keys but the public one. */
export function wgText(object: WgDevice | WgPeer): string {
  const { device, publicKey } = object
  if (object.kind === 'wg-device') return `wg ${device} public-key ${publicKey} listen-port ${object.listenPort}`
  const words = [
    `wg ${device} peer ${publicKey}`,
    object.endpoint && `endpoint ${endpointText(object.endpoint)}`,
    `allowed-ips ${object.allowedIps.map(formatPrefix).join(',')}`,
    object.presharedKey && 'preshared-key (secret)',
    object.keepalive && `persistent-keepalive ${object.keepalive}`
  ]
  return words.filter(Boolean).join(' ')
}
