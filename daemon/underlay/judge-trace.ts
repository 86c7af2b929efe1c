// Judges what a firewall did with the traced packet, and where on this host the packet was seen last.
import { formatIp } from '../../ipam/address.ts'
import type { Dropped, EchoOutcome, Leg, Passed } from '../state/inspection.ts'
import type { Hop, WayFacts } from './way-facts.ts'

const NAMES: Readonly<Record<Leg, string>> = {
  out: 'the packet',
  outer: 'the encapsulated packet',
  back: 'the answer',
  'outer-back': 'the encapsulated answer'
}

export function firewallHop(facts: WayFacts): Hop {
  const { echo, conditions } = facts
  const at = 'firewall'
  if (echo.unsent !== undefined) return { at, state: 'unknown', text: 'no packet was sent that could be traced' }
  const [dropped] = echo.dropped.filter(({ verdict }) => verdict === 'drop')
  if (dropped !== undefined) return droppedHop(dropped, facts)
  if (echo.answeredUs !== undefined)
    return { at, state: 'whole', text: 'no rule of this host dropped the packet or its answer' }
  if (echo.untraced !== undefined) {
    const known = conditions.length === 0 ? 'weftd knows of no rule that drops it' : conditions.join('; ')
    return { at, state: 'unknown', text: `the packet was not traced (${echo.untraced}); ${known}` }
  }
  const [queued] = echo.dropped
  if (queued !== undefined)
    return { at, state: 'unknown', text: `${where(queued)} handed ${NAMES[queued.leg]} to another program (queue)` }
  return lostHop(facts)
}

const where = ({ rule, family, table, chain }: Dropped): string =>
  `${rule === undefined ? 'the policy' : `the rule "${rule}"`} of chain ${family} ${table} ${chain}`

/** What the firewall has to let through: the tunnel's packets have no addresses of pods outside. */
function needed({ leg }: Dropped, { underlay }: WayFacts): string {
  if (underlay === undefined || leg === 'out' || leg === 'back') return 'the pod network'
  return `UDP port ${underlay.port} ${leg === 'outer' ? 'to' : 'from'} ${formatIp(underlay.publicIp)}`
}

function droppedHop(dropped: Dropped, facts: WayFacts): Hop {
  const { leg, family, table, chain, rule } = dropped
  const accept = `accept ${needed(dropped, facts)} before`
  const isIptables = (family === 'ip' || family === 'ip6') && /^(filter|mangle|raw|security|nat)$/.test(table)
  const command = isIptables ? `${family === 'ip' ? 'iptables' : 'ip6tables'} -t ${table}` : 'nft -a list chain'
  const look = isIptables ? `${command} -S ${chain}` : `${command} ${family} ${table} ${chain}`
  return {
    at: 'firewall',
    state: 'wrong',
    text: `${where(dropped)} dropped ${NAMES[leg]}`,
    cure: `${rule === undefined ? `${accept} the end of that chain` : `remove that rule, or ${accept} it`}, in the program that made it: ${look}`
  }
}

/** Nothing that is traced dropped it. */
function lostHop(facts: WayFacts): Hop {
  const { echo, from, isBridged } = facts
  const at = 'firewall'
  if (isBridged) return { at, state: 'unknown', text: 'no traced rule dropped the packet, which stays on one bridge' }
  const out = seen(echo, 'out')
  if (out.length === 0) return unseen(from.kind)
  const missing = (after: Passed['hook']): boolean => !out.some(({ hook, side }) => hook === after && side === 'after')
  const last = out.at(-1)
  if (last?.side === 'before') return inHook(facts, last.hook)
  if (from.kind === 'pod' && last?.hook === 'prerouting' && missing('forward') && missing('input'))
    return {
      at,
      state: 'wrong',
      text: 'the kernel dropped the packet between prerouting and forward: its routing refused it',
      cure: 'nstat -az | grep -E "IpInAddrErrors|IpInNoRoutes|IPReversePathFilter|IpForwDatagrams" before and after a try says why'
    }
  if (missing('postrouting') && missing('input')) return inHook(facts, last?.hook ?? 'forward')
  return leftHop(facts)
}

const seen = ({ passed }: EchoOutcome, leg: Leg): readonly Passed[] => passed.filter((one) => one.leg === leg)

function unseen(from: 'pod' | 'host'): Hop {
  return {
    at: 'firewall',
    state: 'unknown',
    text:
      from === 'pod'
        ? "the packet left the pod, but this host's IP layer did not see it: look for tc or eBPF programs on the pod's link (tc filter show dev LINK ingress; bpftool net)"
        : "no trace shows the packet, which this host's own firewall may have dropped"
  }
}

/** Between the chains that a hook begins and ends with, and no rule of nftables did it. */
function inHook({ legacy }: WayFacts, hook: Passed['hook']): Hop {
  const by =
    legacy.length === 0
      ? 'no rule of nftables did it'
      : `no rule of nftables did it, so a rule of iptables-legacy did (tables with rules: ${legacy.join(', ')})`
  return {
    at: 'firewall',
    state: 'wrong',
    text: `the packet was dropped at hook ${hook}; ${by}`,
    cure:
      legacy.length === 0
        ? 'look for eBPF programs at that hook: bpftool net'
        : `iptables-legacy -t ${legacy[0]} -S; remove the rule that drops it, or accept the pod network before it`
  }
}

/** It passed all chains of this host. */
function leftHop({ echo, underlay }: WayFacts): Hop {
  const at = 'firewall'
  const left = (leg: Leg) => seen(echo, leg).find(({ hook, side }) => hook === 'postrouting' && side === 'after')
  const tunnel = left('outer')
  if (underlay !== undefined && tunnel === undefined)
    return {
      at,
      state: 'unknown',
      text: `no rule of this host dropped the packet, but no encapsulated packet (UDP ${underlay.port}) was seen to leave`
    }
  const by = (tunnel ?? left('out'))?.device
  return {
    at,
    state: 'whole',
    text: `no rule of this host dropped the packet${by === undefined ? '' : `; it left by ${by}`}`
  }
}
