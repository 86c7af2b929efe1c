// `weftctl nodes`: every lease of the network, the path to its node, whether that is programmed in the kernel, and
// whether the node is reached by it.
import { type LeaseAnswer, type NodesAnswer, readAnswer } from '../api/answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'
import { isLost } from './peers.ts'

export const nodes: Command = {
  about: 'the leases of the network, the path to each node, whether it is programmed, and whether packets arrive',
  exits: '0 all programmed and none lost, 1 not all, some lost, or the store has not listed them yet',
  read(answer) {
    const { leases, listed = true } = readAnswer<NodesAnswer>(answer, { leases: 'array' })
    const isFine = leases.every((lease) => isProgrammed(lease) && !podWays(lease).some(isLost))
    const none = listed ? 'no leases\n' : 'the store has not listed its leases yet; weftctl status says why\n'
    return { text: leases.length === 0 ? none : nodesText(leases), exit: isFine && listed ? 0 : 1 }
  }
}

function nodesText(leases: readonly LeaseAnswer[]): string {
  const heading = ['NODE', 'SUBNET', 'PUBLIC-IP', 'BACKEND', 'PATH', 'PROGRAMMED', 'SINCE', 'REACHED']
  const rows = leases.map((lease) => [
    // Without a name, what `weftctl why node` accepts instead.
    lease.node || lease.publicIp[0] || lease.key,
    lease.subnet.join(','),
    lease.publicIp.join(','),
    lease.backend,
    lease.skipped === undefined ? reachText(lease) : 'skipped',
    lease.inKernel && lease.shadowed === undefined ? 'yes' : 'NO',
    lease.since === undefined ? '' : shortTime(lease.since),
    reachedText(lease)
  ])
  const skipped = leases.flatMap(({ key, skipped }) =>
    skipped === undefined ? [] : [`${key} is skipped: ${skipped}\n`]
  )
  const shadowed = leases.flatMap(({ key, shadowed }) => (shadowed === undefined ? [] : [`${key}: ${shadowed}\n`]))
  const lost = leases.flatMap((lease) =>
    podWays(lease)
      .filter(isLost)
      .map(({ text, cure }) => `${lease.key}: ${text}${cure === undefined ? '' : `. Cure: ${cure}`}\n`)
  )
  const notes = [...skipped, ...shadowed, ...lost]
  return `${columns([heading, ...rows])}${notes.length > 0 ? '\n' : ''}${notes.join('')}`
}

/** The ways that packets of pods take. */
const podWays = ({ ways = [] }: LeaseAnswer) => ways.filter(({ way }) => way === 'pods')

/** When packets of pods' full size were last answered; otherwise the verdict of the family that has the worst. */
export function reachedText(lease: LeaseAnswer): string {
  const ways = podWays(lease)
  const [lost] = ways.filter(isLost)
  if (lost !== undefined) return lost.verdict
  if (ways.length === 0) return ''
  const unproven = ways.find(({ verdict }) => verdict !== 'whole')
  if (unproven !== undefined) return unproven.verdict
  const [earliest = ''] = ways.map(({ answeredAt = '' }) => answeredAt).sort()
  return shortTime(earliest)
}

/** Whether the kernel has all objects of the lease and would use them. That packets arrive is another matter. */
export const isProgrammed = ({ inKernel, skipped, shadowed }: LeaseAnswer): boolean =>
  inKernel && skipped === undefined && shadowed === undefined

/** `direct:eth0`, `vxlan:weft.1`, both where the families differ. */
export function reachText({ isOwn, reach }: LeaseAnswer): string {
  if (isOwn) return 'this-node'
  return [...new Set(reach.map(({ how, device }) => `${how}:${device}`))].join(',')
}
