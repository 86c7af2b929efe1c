// `weftctl why pod|node|address NAME [to pod|node|address NAME]`: what happened to it, and the path of a packet to it, hop
// by hop, up to the first fault.
import { readAnswer } from '../api/answers.ts'
import type { WhyWayAnswer } from '../api/path-answers.ts'
import type { Command } from './command.ts'
import { isWholeWay, wayLines } from './way-text.ts'
import { whyNode } from './why-node.ts'
import { whyPod } from './why-pod.ts'

const KINDS = ['pod', 'node', 'address'] as const
const OFFERS = { pod: 'pods', node: 'nodes' } as const

export const why: Command = {
  about:
    'what happened to a pod (NAMESPACE/NAME, address or container id) or a node (name, public address, subnet or an address in it), why, the cure, and what is in the kernel because of it; then the path of a packet to it, hop by hop, up to the first fault, with one traced ICMP echo request. With "to" the path between the two; the first must be on this node',
  exits: '0 everything is there and the path has no fault, 1 something failed, is missing or unknown',
  operands: [
    { name: 'KIND', oneOf: KINDS },
    { name: 'NAME', offers: OFFERS },
    { name: 'to', oneOf: ['to'], isOptional: true },
    { name: 'KIND', oneOf: KINDS, isOptional: true, followsOptional: true },
    { name: 'NAME', offers: OFFERS, isOptional: true, followsOptional: true }
  ],
  read(answer, [kind, , to]) {
    if (to === undefined && kind === 'pod') return whyPod(answer)
    if (to === undefined && kind === 'node') return whyNode(answer)
    const { way } = readAnswer<WhyWayAnswer>(answer, { way: 'object' })
    return { text: `${wayLines(way).join('\n')}\n`, exit: isWholeWay(way) ? 0 : 1 }
  }
}
