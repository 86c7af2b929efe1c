// `weftctl nodes`: every lease of the network, the path to its node, and whether that is programmed in the kernel.
import { type LeaseAnswer, type NodesAnswer, readAnswer } from '../api/answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

export const nodes: Command = {
  about: 'the leases of the network, the path to each node, and whether it is programmed in the kernel',
  exits: '0 all programmed, 1 not all',
  read(answer) {
    const { leases } = readAnswer<NodesAnswer>(answer, { leases: 'array' })
    const isFine = leases.every(isProgrammed)
    return { text: leases.length === 0 ? 'no leases\n' : nodesText(leases), exit: isFine ? 0 : 1 }
  }
}

function nodesText(leases: readonly LeaseAnswer[]): string {
  const heading = ['NODE', 'SUBNET', 'PUBLIC-IP', 'BACKEND', 'PATH', 'PROGRAMMED', 'SINCE']
  const rows = leases.map((lease) => [
    // Without a name, what `weftctl why node` accepts instead.
    lease.node || lease.publicIp[0] || lease.key,
    lease.subnet.join(','),
    lease.publicIp.join(','),
    lease.backend,
    lease.skipped === undefined ? reachText(lease) : 'skipped',
    lease.inKernel && lease.shadowed === undefined ? 'yes' : 'NO',
    lease.since === undefined ? '' : shortTime(lease.since)
  ])
  const skipped = leases.flatMap(({ key, skipped }) =>
    skipped === undefined ? [] : [`${key} is skipped: ${skipped}\n`]
  )
  const shadowed = leases.flatMap(({ key, shadowed }) => (shadowed === undefined ? [] : [`${key}: ${shadowed}\n`]))
  const notes = [...skipped, ...shadowed]
  return `${columns([heading, ...rows])}${notes.length > 0 ? '\n' : ''}${notes.join('')}`
}

/**
 * Whether the kernel has all objects of the lease and would use them. That packets arrive is another matter, which
 * nothing here has tried.
 */
export const isProgrammed = ({ inKernel, skipped, shadowed }: LeaseAnswer): boolean =>
  inKernel && skipped === undefined && shadowed === undefined

/** `direct:eth0`, `vxlan:weft.1`, both where the families differ. */
export function reachText({ isOwn, reach }: LeaseAnswer): string {
  if (isOwn) return 'this-node'
  return [...new Set(reach.map(({ how, device }) => `${how}:${device}`))].join(',')
}
