// `weftctl status`: whether this node is ready, its state, and each condition with its cure.
import { readAnswer, type StatusAnswer } from '../api/answers.ts'
import { shortTime } from './columns.ts'
import type { Command } from './command.ts'

/** What a condition blocks, in words for a reader. */
const EFFECTS: Readonly<Record<string, string>> = { add: 'no pod can be set up', ready: '/readyz is 503' }

export const status: Command = {
  about: 'state of this node, and what is wrong, with the cure',
  exits: '0 ready, 1 not ready',
  read(answer) {
    const status = readStatus(answer)
    return { text: statusText(status), exit: status.ready ? 0 : 1 }
  }
}

/**
 * A node that serves pods while something else is broken, such as its link to the other nodes, is not plainly ready.
 */
function stateOf({ ready, conditions }: StatusAnswer): string {
  if (!ready) return 'NOT READY'
  const errors = conditions.filter(({ severity }) => severity === 'error').map(({ code }) => code)
  return errors.length === 0 ? 'ready' : `ready, but ${errors.join(', ')}`
}

/** Errors: ANSWER_UNKNOWN. */
export const readStatus = (answer: unknown): StatusAnswer =>
  readAnswer<StatusAnswer>(answer, {
    version: 'string',
    ready: 'boolean',
    startedAt: 'string',
    node: 'string',
    store: 'string',
    backend: 'string',
    network: 'array',
    subnet: 'array',
    publicIp: 'array',
    peers: 'number',
    pods: 'number',
    conditions: 'array'
  })

/** The answer as text, one fact per line. */
function statusText(status: StatusAnswer): string {
  const { link } = status
  const facts: readonly (readonly [string, string])[] = [
    ['subnet', status.subnet.join(', ')],
    ['network', status.network.join(', ')],
    ['public IP', status.publicIp.join(', ')],
    ['interface', link === undefined ? '' : `${link.name}, MTU ${link.mtuBytes}, ${link.ips.join(', ')}`],
    ...(status.podMtuBytes === undefined ? [] : [['MTU of pods', String(status.podMtuBytes)] as const]),
    ['backend', status.backend],
    ['store', status.store],
    ...(status.leaseEnds === undefined
      ? []
      : [['lease until', `${shortTime(status.leaseEnds)} (renewed before that)`] as const]),
    // Until then this node's own lease counts as another's.
    ['other nodes', status.subnet.length === 0 ? '' : String(status.peers)],
    ['pods here', String(status.pods)],
    ['running since', status.startedAt]
  ]
  const head = `${status.node}: ${stateOf(status)} (weftd ${status.version})`
  const rows = facts.map(([name, value]) => `  ${name.padEnd(14)}${value || '(not known yet)'}`)
  const conditions = status.conditions.map(({ severity, code, blocks, since, sentence }) => {
    const effect = blocks.map((each) => `, ${EFFECTS[each] ?? `blocks ${each}`}`).join('')
    return `\n${severity.toUpperCase()} ${code}${effect}, since ${since}\n  ${sentence}`
  })
  return `${[head, ...rows, ...conditions].join('\n')}\n`
}
