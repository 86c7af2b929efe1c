// What is said of translated packets to a peer, and of checksum offload: one sentence and one action.
import type { Broken } from './checksum-alias.ts'
import type { WayText } from './probe-text.ts'

/** `silent`: untranslated packets are not answered either. */
export type TranslatedFinding =
  | {
      readonly is: 'not-asked'
      readonly why: 'no-tunnel' | 'untracked' | 'refused' | 'not-whole' | 'not-due'
      /** By which packets of pods leave. */
      readonly device: string
    }
  | {
      readonly is: 'whole' | 'silent' | 'lost'
      readonly msAgo: number
      readonly device: string
      /** weftd has turned transmit checksum offload of the device off. */
      readonly isCured: boolean
    }

type Facts = { readonly peer: string; readonly asked: string; readonly port: number }

/** As one of the ways to a peer. */
export function findingText(found: TranslatedFinding, { peer, asked, port }: Facts): WayText {
  const question = `UDP port ${port} of ${asked}`
  switch (found.is) {
    case 'not-asked':
      return { text: whyNot(found) }
    case 'silent':
      return { text: `not known: ${question} answers no packets, translated or not; a firewall may drop them` }
    case 'whole': {
      const off = found.isCured ? `, with transmit checksum offload of ${found.device} turned off by weftd` : ''
      return { text: `${asked} answers packets whose source port is translated${off}` }
    }
    case 'lost':
      return checksumText({ is: 'lost', node: peer, device: found.device })
  }
}

function whyNot({ why, device }: Extract<TranslatedFinding, { is: 'not-asked' }>): string {
  switch (why) {
    case 'no-tunnel':
      return `not asked: packets of pods leave by ${device} without a tunnel`
    case 'untracked':
      return 'not asked: this node translates no packets, as its kernel tracks no connections'
    case 'refused':
      return 'not asked: the kernel refuses the rule that translates the packet'
    case 'not-whole':
      return 'not asked yet: probes must pass in both directions first'
    case 'not-due':
      return 'not asked yet: once a day, at a time of its own for each node'
  }
}

type Checksum = { readonly node: string; readonly device: string } & (
  | { readonly is: 'cured'; readonly broken: Broken }
  | { readonly is: 'lost' }
)

/** Of the condition, and of such a path. */
export function checksumText(about: Checksum): WayText {
  const { node, device } = about
  if (about.is === 'lost')
    return {
      text: `packets to the pods of ${node} whose source port is translated are lost, and others are answered: transmit checksum offload of ${device} is off, or makes no difference`,
      cure: 'turn transmit checksum offload off on the interface between the nodes as well (ethtool -K INTERFACE tx off), or update its driver and the kernel; then restart weftd'
    }
  const lost =
    about.broken === 'all'
      ? `UDP and TCP packets to the pods of ${node} were lost, and ICMP was answered`
      : `packets to the pods of ${node} whose source port is translated were lost, and others were answered`
  return {
    text: `${lost}; weftd has turned transmit checksum offload of ${device} off, and they are answered now`,
    cure: 'no action is needed: weftd tries it with offload again after a day, and then less often; pods use somewhat more processor time until the driver or the kernel is fixed'
  }
}
