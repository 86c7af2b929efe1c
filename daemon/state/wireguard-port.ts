// The interface to a WireGuard device: of the kernel (kernel/netlink/wireguard.ts) or of wireguard-go
// (kernel/wireguard-uapi.ts). Keys are base64.
import type { Prefix } from '../../ipam/address.ts'
import type { Endpoint, Secret, WgTraffic } from './wireguard.ts'

export type PeerState = {
  readonly publicKey: string
  readonly endpoint?: Endpoint
  readonly presharedKey: string | undefined
  readonly keepalive: number
  readonly allowedIps: readonly Prefix[]
  readonly traffic: WgTraffic
}

export type DeviceState = {
  /** Empty without a key. */
  readonly publicKey: string
  readonly listenPort: number
  readonly peers: readonly PeerState[]
}

/** What is absent stays as it is; `allowedIps` replace those that it has. */
export type PeerChange = {
  readonly publicKey: string
  readonly remove?: true
  readonly endpoint?: Endpoint | undefined
  readonly presharedKey?: Secret | null | undefined
  readonly keepalive?: number | undefined
  readonly allowedIps?: readonly Prefix[] | undefined
}

export type DeviceChange = {
  readonly device: string
  readonly privateKey?: Secret | undefined
  readonly listenPort?: number
  readonly peers?: readonly PeerChange[]
}

export interface WireguardPort {
  /** `undefined`: it has no such device. Errors: WeftError. */
  read(device: string): Promise<DeviceState | undefined>
  /** Errors: an Error with a number from errno(3) as `errno`, where the device refused the change. */
  change(change: DeviceChange): Promise<void>
}
