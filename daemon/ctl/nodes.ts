// `weftctl nodes`: every lease of the network, how its node is reached from here, and whether the kernel has the
// objects for it.
import { type LeaseAnswer, type NodesAnswer, readAnswer } from '../api/answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

export const nodes: Command = {
  about: 'the leases of the network, how each node is reached, and whether that is in the kernel',
  exits: '0 all reached, 1 not all, or the store has not listed them yet',
  read(answer) {
    const { leases, listed = true } = readAnswer<NodesAnswer>(answer, { leases: 'array' })
    const isFine = leases.every(({ inKernel, skipped }) => inKernel && skipped === undefined)
    const none = listed ? 'no leases\n' : 'the store has not listed its leases yet; weftctl status says why\n'
    return { text: leases.length === 0 ? none : nodesText(leases), exit: isFine && listed ? 0 : 1 }
  }
}

function nodesText(leases: readonly LeaseAnswer[]): string {
  const heading = ['NODE', 'SUBNET', 'PUBLIC-IP', 'BACKEND', 'REACHED', 'IN-KERNEL', 'SINCE']
  const rows = leases.map((lease) => [
    // Without a name, what `weftctl why node` accepts instead.
    lease.node || lease.publicIp[0] || lease.key,
    lease.subnet.join(','),
    lease.publicIp.join(','),
    lease.backend,
    lease.skipped === undefined ? reachText(lease) : 'skipped',
    lease.inKernel ? 'yes' : 'NO',
    lease.since === undefined ? '' : shortTime(lease.since)
  ])
  const skipped = leases.flatMap(({ key, skipped }) =>
    skipped === undefined ? [] : [`${key} is skipped: ${skipped}\n`]
  )
  return `${columns([heading, ...rows])}${skipped.length > 0 ? '\n' : ''}${skipped.join('')}`
}

/** `direct:eth0`, `vxlan:weft.1`, both where the families differ. */
export function reachText({ isOwn, reach }: LeaseAnswer): string {
  if (isOwn) return 'this-node'
  return [...new Set(reach.map(({ how, device }) => `${how}:${device}`))].join(',')
}
