// `weftctl why node NAME`: the leases of a node, what is in the kernel because of them, and the way there.
import { type LeaseAnswer, type ObjectAnswer, readAnswer, type WhyNodeAnswer } from '../api/answers.ts'
import { shortTime } from './columns.ts'
import type { Command } from './command.ts'
import { isProgrammed, reachText } from './nodes.ts'
import { objectLines } from './object-lines.ts'
import { isWholeWay, wayLines } from './way-text.ts'

export function whyNode(answer: unknown): ReturnType<Command['read']> {
  const found = readAnswer<WhyNodeAnswer>(answer, {
    name: 'string',
    leases: 'array',
    conditions: 'array',
    near: 'array'
  })
  const conditions =
    found.conditions.length === 0
      ? []
      : ['', 'conditions on this node:', ...found.conditions.map((sentence) => `  ${sentence}`)]
  if (found.leases.length === 0) {
    const near = found.near.length === 0 ? [] : [`similar names: ${found.near.join(', ')}`]
    const cure =
      'cure: use one of its public addresses, its subnet or an address in it (etcd has no node names; weftctl nodes lists all leases); if it has no lease, run weftctl status on that node'
    return {
      text: `${[`${found.name}: no lease matches this node`, ...near, cure, ...conditions].join('\n')}\n`,
      exit: 1
    }
  }
  const way = found.way === undefined ? [] : ['', ...wayLines(found.way)]
  const lines = [...found.leases.flatMap(leaseLines), ...conditions, ...way]
  const isFine = found.leases.every(isProgrammed) && isWholeWay(found.way)
  return { text: `${lines.join('\n')}\n`, exit: isFine ? 0 : 1 }
}

function leaseLines(lease: LeaseAnswer & { readonly objects: readonly ObjectAnswer[] }): readonly string[] {
  const there = lease.objects.filter(({ state }) => state === 'there').length
  const name = lease.node === '' ? '' : `${lease.node}, `
  return [
    `${name}lease ${lease.key}${lease.isOwn ? ' (this node)' : ''}: ${leaseVerdict(lease)}`,
    ...(lease.skipped === undefined ? [] : [`  skipped: ${lease.skipped}`]),
    ...(lease.shadowed === undefined ? [] : [`  shadowed: ${lease.shadowed}`]),
    ...(lease.publicIp.length > 0 ? [`  public IP   ${lease.publicIp.join(', ')}`] : []),
    ...(lease.backend === '' ? [] : [`  backend     ${lease.backend}`]),
    ...(lease.isOwn || lease.reach.length === 0 ? [] : [`  path        ${reachText(lease)}`]),
    ...(lease.since === undefined ? [] : [`  known since ${shortTime(lease.since)}`]),
    `  in the kernel because of it, ${there} of ${lease.objects.length}:`,
    ...objectLines(lease.objects)
  ]
}

function leaseVerdict({ inKernel, skipped, isOwn, shadowed }: LeaseAnswer): string {
  if (skipped !== undefined) return 'not used'
  if (isOwn) return inKernel ? 'the local end is set up' : 'the local end is incomplete in the kernel'
  if (inKernel && shadowed !== undefined) return 'programmed, but the kernel does not use it'
  return inKernel ? 'programmed' : 'incomplete in the kernel'
}
