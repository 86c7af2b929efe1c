// What a verdict says to an administrator: one sentence with peer, direction, port and size, and one action.
import type { Judgement } from './judge.ts'
import type { Way } from './probe-packet.ts'

export type PortFacts = { readonly protocol: string; readonly port: number }

export type WayText = { readonly text: string; readonly cure?: string }

/**
 * Why a plain route that there could be is not used. `left`: it carried nothing in use. `lost`, `large-lost`, `unheard`:
 * of the last trial; `unheard`: the peer's own probes did not arrive by it. `refused-here`, `refused-there`: a firewall
 * drops forwarded packets of pods. `strict`: the reverse path filter of this node; `left-strict`: behind it, too.
 * `no-trial`: of IPv6, whose routes have no type of service.
 */
export type PlainUnused = {
  readonly why:
    | 'left'
    | 'lost'
    | 'large-lost'
    | 'unheard'
    | 'refused-here'
    | 'refused-there'
    | 'strict'
    | 'left-strict'
    | 'no-trial'
  /** Milliseconds since that was found; 0 for what is so now. */
  readonly msAgo: number
  /** The rule that drops them here, as a sentence. */
  readonly because?: string
}

export type TextFacts = Judgement & {
  readonly way: Way
  /** The peer's node name, or its public address. */
  readonly peer: string
  /** Public addresses, as text. */
  readonly here: string
  readonly there: string
  /** The address that is asked. */
  readonly asked: string
  /** Of the tunnel; absent on plain routes. */
  readonly port?: PortFacts
  /** The device by which the packets leave. */
  readonly device: string
  /** Bytes of the large probe, and with what encapsulation adds. */
  readonly mtu: number
  readonly outerMtu: number
  readonly roundTripUs: number
  /** Why the kernel did not send the last probe. */
  readonly refused?: string
  /** Whether the peer answers from node address to node address; `undefined`: not known. */
  readonly nodesAnswer?: boolean
  /** Whose firewall drops what arrives, where that is known. */
  readonly dropsHere?: boolean
}

/** Of any verdict but `not-asked`, whose reason is its text, and `whole`. */
export function wayText(facts: TextFacts): WayText {
  if (facts.refused !== undefined) return refusedText(facts, facts.refused)
  if (facts.way === 'nodes') return nodesText(facts)
  if (facts.verdict === 'host-firewall') return firewallText(facts)
  if (facts.verdict === 'large-lost') return largeText(facts)
  return lostText(facts)
}

/** Of the verdict `whole`. */
export function wholeText({
  way,
  asked,
  roundTripUs,
  mtu
}: Pick<TextFacts, 'way' | 'asked' | 'roundTripUs' | 'mtu'>): string {
  const sizes = way === 'nodes' ? '' : `, at 84 and at ${mtu} bytes`
  return `${asked} answers in ${milliseconds(roundTripUs)}${sizes}`
}

export const milliseconds = (us: number): string => `${(us / 1_000).toFixed(us < 10_000 ? 2 : 0)} ms`

function refusedText({ peer, asked, device, mtu }: TextFacts, refused: string): WayText {
  if (refused === 'EPERM')
    return {
      text: `this node's own firewall does not let packets to ${peer} (${asked}) leave`,
      cure: `accept packets to ${asked} in the OUTPUT chain of this node: nft list ruleset`
    }
  if (refused === 'EMSGSIZE')
    return {
      text: `packets of ${mtu} bytes to ${peer} do not leave this node: ${device} carries less`,
      cure: `raise the MTU of ${device}, or remove the smaller one from the route: ip route get ${asked}`
    }
  return {
    text: `the kernel does not send packets to ${peer} (${asked}): ${refused}`,
    cure: `check the route to it: ip route get ${asked}`
  }
}

function nodesText({ peer, there }: TextFacts): WayText {
  return {
    text: `${peer} does not answer ICMP echo at ${there}`,
    cure: `check that ${peer} is up and that no firewall drops ICMP echo to ${there}`
  }
}

/** What is lost: `UDP port 8472`, or packets on a plain route. */
const what = ({ port, device }: TextFacts): readonly [subject: string, verb: 'is' | 'are'] =>
  port === undefined
    ? [`packets of pods on the plain route by ${device}`, 'are']
    : [`${port.protocol.toUpperCase()} port ${port.port}`, 'is']

/** A peer without a name is called by its address. */
const named = ({ peer, there }: Pick<TextFacts, 'peer' | 'there'>): string =>
  peer === there ? there : `${peer} (${there})`

function lostText(facts: TextFacts): WayText {
  const { verdict, peer, here, there, out, back } = facts
  const [subject, verb] = what(facts)
  const [ours, theirs] = [`this node (${here})`, named(facts)]
  if (verdict === 'out-lost')
    return {
      text: `${subject} from ${ours} to ${theirs} ${verb} lost: probes from ${peer} arrive here, but it receives none of ours`,
      cure: passCure(facts, `from ${here} to ${there}`)
    }
  if (verdict === 'back-lost')
    return {
      text: `${subject} from ${theirs} to ${ours} ${verb} lost: ${peer} receives our probes, but none of its own arrive here`,
      cure: passCure(facts, `from ${there} to ${here}`)
    }
  const both = out === false && back === false
  const direction = both ? 'in both directions' : 'direction unknown'
  if (facts.nodesAnswer === false)
    return {
      text: `${subject} between ${ours} and ${theirs} ${verb} lost, ${direction}; ${there} does not answer either`,
      cure: `check that ${peer} is up and reachable from this node: ping ${there}`
    }
  const alive = facts.nodesAnswer === true ? `; ${there} itself answers` : ''
  return {
    text: `${subject} between ${ours} and ${theirs} ${verb} lost, ${direction}${alive}`,
    cure: passCure(facts, `between ${here} and ${there}, in both directions`)
  }
}

const passCure = ({ port, peer }: Pick<TextFacts, 'port' | 'peer'>, between: string): string =>
  port === undefined
    ? `let packets with addresses of pods pass ${between} (port security, source and destination checks, firewalls of this node, of ${peer} and between them), or set DirectRouting to false`
    : `let ${port.protocol.toUpperCase()} port ${port.port} pass ${between}: firewalls of this node, of ${peer} and between them, security groups`

function largeText(facts: TextFacts): WayText {
  const { here, there, mtu, outerMtu, out, back, port } = facts
  const theirs = named(facts)
  const size = port === undefined ? `${mtu} bytes` : `${mtu} bytes (${outerMtu} between the nodes)`
  const way =
    back === true && out === false
      ? `from this node (${here}) to ${theirs}`
      : out === true && back === false
        ? `from ${theirs} to this node (${here})`
        : `between this node (${here}) and ${theirs}`
  return {
    text: `packets of ${size} ${way} are lost, but small ones pass`,
    cure: `raise the MTU on the path between ${here} and ${there} to ${outerMtu}, or set MTU in Backend to what it carries and recreate the pods, which keep theirs`
  }
}

function firewallText({ peer, asked, device, dropsHere }: TextFacts): WayText {
  const whose = dropsHere === true ? 'this node' : peer
  return {
    text: `packets to and from ${peer} arrive, but ICMP echo on ${device} is not answered: the firewall of ${whose} drops it, or net.ipv4.icmp_echo_ignore_all is 1 there`,
    cure: `accept ICMP echo for ${dropsHere === true ? "this node's address in the pod network" : asked} on ${device} on ${whose}`
  }
}

/** Of a plain route that is not used. */
export function plainText(
  { why, because }: Pick<PlainUnused, 'why' | 'because'>,
  facts: Pick<TextFacts, 'peer' | 'here' | 'there' | 'device'>
): WayText {
  const route = `the plain route by ${facts.device} to ${named(facts)}`
  const then = 'the tunnel is used instead, and the plain route is tried again later'
  const cure = passCure(facts, `between ${facts.here} and ${facts.there}`)
  switch (why) {
    case 'left':
      return { text: `${route} carries no packets of pods: ${then}`, cure }
    case 'lost':
      return { text: `${route} lost the probes that tried it: ${then}`, cure }
    case 'large-lost':
      return {
        text: `${route} lost the large ones of the probes that tried it: ${then}`,
        cure: `set the MTU of the links between ${facts.here} and ${facts.there} to that of ${facts.device}`
      }
    case 'unheard':
      return {
        text: `no probes from ${facts.peer} arrived on ${facts.device} without the tunnel; a flanneld sends none: ${then}`,
        cure: `run weftd on ${facts.peer}, or set DirectRouting to true`
      }
    case 'refused-here':
      return {
        text: `${route} is not tried: the firewall of this node would drop packets of pods: ${because}`,
        cure: `accept the pod network on ${facts.device} before that rule, or set DirectRouting to false: the tunnel is used`
      }
    case 'refused-there':
      return {
        text: `${route} is not tried: the firewall of ${facts.peer} would drop packets of pods`,
        cure: `weftctl peers on ${facts.peer} names the rule; until it is changed the tunnel is used`
      }
    case 'no-trial':
      return {
        text: `${route} is not tried: IPv6 has no routes that only probes would take; the tunnel is used`,
        cure: `set DirectRouting to true where ${facts.device} carries packets of pods between all nodes on its link`
      }
    case 'left-strict':
      return {
        text: `${route} carries no packets of pods: the tunnel is used instead, and as the reverse path filter of this node is strict (rp_filter 1), the plain route is not tried again`,
        cure: `set net.ipv4.conf.all.rp_filter and net.ipv4.conf.${facts.device}.rp_filter to 2: then it is tried again by itself`
      }
    case 'strict':
      return {
        text: `${route} is not tried: the reverse path filter of this node (rp_filter 1) would drop what arrives by it meanwhile`,
        cure: `set net.ipv4.conf.all.rp_filter and net.ipv4.conf.${facts.device}.rp_filter to 2, or DirectRouting to true`
      }
  }
}
