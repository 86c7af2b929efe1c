// The rule that translates the source port of one kind of probe, and that of the tunnel's packet around it. It matches
// nothing else, whoever uses the same mark.
import { type Ip, type PerFamily, type Prefix, perFamily } from '../../ipam/address.ts'
import type { NftChain } from '../state/object.ts'
import { nftChain } from './chain.ts'
import { fromPrefix, toPrefix } from './match.ts'

/** SKB mark of the probes: no bit of kube-proxy's, which are 0x4000 and 0x8000. */
export const TRANSLATED_MARK = 0x10a7
/** RFC 863; nobody listens there. */
export const TRANSLATED_PORT = 9

/** Where packets of pods and of tunnels come from, too: the firewall of a peer may let other ports through or not. */
const TRANSLATE = 'masquerade to :32768-60999 fully-random'
const UDP = 17
/** Octets in the IP header: source address, protocol, and length of the whole. */
const HEADER = { 4: { source: 12, protocol: 9, length: 20 }, 6: { source: 8, protocol: 6, length: 40 } } as const

export type TranslatedProbe = {
  /** The addresses that probes leave with. */
  readonly source: PerFamily<Ip>
  /** Networks of pods, in which the probed addresses are. */
  readonly cluster: PerFamily<Prefix>
  /** The tunnel's UDP port, and octets from the outer UDP header to the inner IP header. */
  readonly outer: { readonly port: number; readonly innerAt: number }
}

/** A tunnel's packet keeps the mark of the packet in it, so that rules of others that match by mark translate both. */
export function translatedProbe({ source, cluster, outer }: TranslatedProbe): NftChain {
  const rules = perFamily(source).flatMap(([family, ip]) => {
    const network = cluster[family]
    if (network === undefined) return []
    const mark = `meta mark ${TRANSLATED_MARK}`
    const from = fromPrefix({ ip, length: family === 4 ? 32 : 128 })
    const header = HEADER[family]
    const at = (octet: number, octets: number, value: bigint | number) =>
      `@th,${(outer.innerAt + octet) * 8},${octets * 8} 0x${value.toString(16)}`
    const inner = [
      at(header.protocol, 1, UDP),
      at(header.source, header.length === 20 ? 4 : 16, ip.value),
      at(header.length + 2, 2, TRANSLATED_PORT)
    ]
    return [
      `${mark} ${from} ${toPrefix(network)} udp dport ${TRANSLATED_PORT} ${TRANSLATE}`,
      `${mark} udp dport ${outer.port} ${inner.join(' ')} ${TRANSLATE}`
    ]
  })
  return nftChain(
    'translated_probe',
    'type nat hook postrouting priority srcnat',
    rules,
    'a translated packet to each node once a day'
  )
}
