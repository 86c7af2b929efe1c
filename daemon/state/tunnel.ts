// Configuration of the process that serves a TUN device: the socket to use, and which node has which pods.
import type { Ip, Prefix } from '../../ipam/address.ts'

type OfDevice = { readonly because?: string; readonly device: string }

/** The packets of the TUN device go out as UDP datagrams from this address, port to same port. */
export type TunnelSocket = OfDevice & {
  readonly kind: 'tunnel-socket'
  readonly local: Ip
  readonly port: number
}

/** Packets to the subnet go to the node at `to`, and only that node may send packets from it. */
export type TunnelPeer = OfDevice & {
  readonly kind: 'tunnel-peer'
  readonly subnet: Prefix
  readonly to: Ip
}

export type TunnelObject = TunnelSocket | TunnelPeer

export const isTunnel = (object: { readonly kind: string }): object is TunnelObject =>
  object.kind === 'tunnel-socket' || object.kind === 'tunnel-peer'
