// What nodes of a lab say of their ways to each other.
import assert from 'node:assert/strict'
import type { PeersAnswer, ProbeAnswer } from '../../daemon/api/path-answers.ts'
import type { Cluster } from './cluster.ts'
import { until } from './run.ts'
import { weftctl } from './weftctl.ts'

export const answer = async (cluster: Cluster, n: number): Promise<PeersAnswer> =>
  JSON.parse((await weftctl(cluster.node(n), ['peers', '--json'])).stdout)

/** What node `n` knows of its way to the node `to`. */
export function wayTo(cluster: Cluster, { peers }: PeersAnswer, to: number, way = 'pods'): ProbeAnswer {
  const peer = peers.find(({ publicIp }) => publicIp.includes(cluster.node(to).address))
  return peer?.ways.find((each) => each.way === way) ?? assert.fail(`no ${way} to ${to}`)
}

/** Waits until these nodes say this of each other: `'1 2': 'out-lost'` is what 1 says of 2. */
export async function become(
  cluster: Cluster,
  expected: Readonly<Record<string, string>>
): Promise<readonly ProbeAnswer[]> {
  const nodes = [...new Set(Object.keys(expected).map((pair) => Number(pair[0])))]
  const look = async () => {
    const answers = new Map(await Promise.all(nodes.map(async (n) => [n, await answer(cluster, n)] as const)))
    return Object.keys(expected).map((words) => {
      const [n, to, way] = words.split(' ')
      return wayTo(cluster, answers.get(Number(n)) ?? assert.fail(words), Number(to), way)
    })
  }
  const isSo = async () => {
    const found = await look()
    const verdicts = Object.keys(expected).map((words, at) => [words, found[at]?.verdict])
    const texts = Object.keys(expected).map((words, at) => `${words}: ${found[at]?.text}`)
    assert.deepEqual(Object.fromEntries(verdicts), expected, texts.join('\n'))
    return found
  }
  return until(isSo, { what: JSON.stringify(expected), everyMs: 300, deadlineMs: 120_000 })
}

export const conditions = async (cluster: Cluster, n: number) => (await cluster.daemon(n).readyz()).body
