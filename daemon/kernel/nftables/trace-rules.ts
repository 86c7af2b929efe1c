// The nftables table that has the kernel trace our echo requests: rules that match these packets alone, and chains that
// show how far they come. No chain of it drops anything.
import { formatIp, type Ip } from '../../../ipam/address.ts'
import type { Echo, Leg, Passed } from '../../state/inspection.ts'

/** Not Weft's own table, whose chains the reconciler compares. */
export const TRACE_TABLE = 'weft-trace'
export const TRACE_FAMILIES = ['inet', 'bridge'] as const

/** Before and after all other chains of a hook. */
const SIDES = { before: -2_000_000_000, after: 2_000_000_000 } as const
const HOOKS = ['prerouting', 'input', 'forward', 'output', 'postrouting'] as const

/** Octets from the outer UDP header to the inner IP header: UDP 8, VXLAN 8, Ethernet 14. */
const TO_INNER = 30

/** A packet of `leg` is marked by a jump to this chain, whose name its trace repeats. */
export const markOf = (leg: Leg, number: number): string => `is-${leg}-${number}`

export function markIn(chain: string | undefined): { readonly leg: Leg; readonly number: number } | undefined {
  const [, leg, number] = /^is-(out|outer|back|outer-back)-(\d+)$/.exec(chain ?? '') ?? []
  return leg === undefined ? undefined : { leg: leg as Leg, number: Number(number) }
}

/** `input-before` and so on. */
export function passedIn(chain: string | undefined): Pick<Passed, 'hook' | 'side'> | undefined {
  const [hook, side] = (chain ?? '').split('-')
  const found = HOOKS.find((each) => each === hook)
  return found === undefined || (side !== 'before' && side !== 'after') ? undefined : { hook: found, side }
}

/**
 * The commands that create the table. `owned`: the kernel removes it when our socket closes, also when weftd is killed
 * (NFT_TABLE_F_OWNER, Linux 5.12). `number` of a request begins at 1.
 */
export function traceTable(
  family: (typeof TRACE_FAMILIES)[number],
  echoes: readonly Echo[],
  id: number,
  owned: boolean
): string {
  const marks = echoes.flatMap((echo, at) => marksOf(echo, id, at + 1))
  const named = (mark: Mark) => `chain ${mark.to} { }`
  // In every hook: behind a bridge the kernel gives the packet another id in forward than in prerouting.
  const rules = ruleLines(marks)
  const bases = HOOKS.flatMap((hook) =>
    (['before', 'after'] as const).map(
      (side) =>
        `chain ${hook}-${side} { type filter hook ${hook} priority ${SIDES[side]}; policy accept; ${
          side === 'before' ? rules : ''
        }}`
    )
  )
  const flags = owned ? 'flags owner\n' : ''
  const tunnels = marks.some(({ port }) => port !== undefined)
    ? [`chain tunnels { ${marks.flatMap((mark) => (mark.port === undefined ? [] : [ruleText(mark)])).join(' ')} }`]
    : []
  return `table ${family} ${TRACE_TABLE} {\n${flags}${[...marks.map(named), ...tunnels, ...bases].join('\n')}\n}`
}

type Mark = { readonly match: string; readonly to: string; readonly port?: number }

const ruleText = ({ match, to }: Mark): string => `${match} meta nftrace set 1 goto ${to};`

/** Packets of other protocols leave at the first rule, and UDP to other ports is compared with few. */
function ruleLines(marks: readonly Mark[]): string {
  const ports = [...new Set(marks.flatMap(({ port }) => port ?? []))]
  return [
    ...(ports.length === 0 ? [] : [`udp dport { ${ports.join(', ')} } goto tunnels;`]),
    'meta l4proto != { icmp, ipv6-icmp } accept;',
    ...marks.filter(({ port }) => port === undefined).map(ruleText)
  ].join(' ')
}

function marksOf({ destination, tunnelPort }: Echo, id: number, number: number): readonly Mark[] {
  const [ip, icmp] = destination.family === 4 ? ['ip', 'icmp'] : ['ip6', 'icmpv6']
  // The identifier is ours and random, and source addresses may be translated on the way.
  const inIcmp = `${icmp} id ${id} ${icmp} sequence ${number}`
  const plain: readonly Mark[] = [
    { match: `${icmp} type echo-request ${inIcmp} ${ip} daddr ${formatIp(destination)}`, to: markOf('out', number) },
    { match: `${icmp} type echo-reply ${inIcmp}`, to: markOf('back', number) }
  ]
  if (tunnelPort === undefined) return plain
  const tunnel = (leg: 'outer' | 'outer-back'): Mark => ({
    match: innerMatch(destination, leg, id, number),
    to: markOf(leg, number),
    port: tunnelPort
  })
  return [...plain, tunnel('outer'), tunnel('outer-back')]
}

/** Matches the packet inside VXLAN by its octets: address of the pod, ICMP identifier and sequence number. */
function innerMatch(pod: Ip, leg: 'outer' | 'outer-back', id: number, number: number): string {
  const [source, destination, octets, header] = pod.family === 4 ? [12, 16, 4, 20] : [8, 24, 16, 40]
  const at = leg === 'outer' ? destination : source
  const type = pod.family === 4 ? { outer: 8, 'outer-back': 0 }[leg] : { outer: 128, 'outer-back': 129 }[leg]
  const raw = (from: number, length: number, value: bigint | number) =>
    `@th,${(TO_INNER + from) * 8},${length * 8} 0x${value.toString(16)}`
  return [raw(at, octets, pod.value), raw(header, 1, type), raw(header + 4, 4, id * 0x1_0000 + number)].join(' ')
}
