// Rows of scripts/bench converge about a cluster that changes all the time: from each change to the kernel, the daemon's
// processor time, and its memory.
import { setTimeout as pause } from 'node:timers/promises'
import type { Host } from '../lab/host.ts'
import { until } from '../lab/run.ts'
import type { Backend, Cluster } from './cluster.ts'
import { fakeRoutes, memoryOf, processorSecondsOf, RouteMonitor } from './kernel-watch.ts'
import { progress } from './report.ts'
import type { Side } from './sides.ts'
import { type Measured, programmed, settledMs } from './start-up.ts'

export type Churn = { readonly perSecond: number; readonly seconds: number }

/** One round of one side: all leases, then `perSecond` changes for `seconds`. */
export async function churn(
  cluster: Cluster,
  side: Side,
  backend: Backend,
  nodes: number,
  rate: Churn,
  measured: Measured,
  note: (text: string) => void
): Promise<void> {
  await cluster.withNode(side, { wait: false }, async ({ host, daemon }) => {
    await programmed(host, backend, nodes, 900_000)
    await pause(settledMs)
    const before = processorSecondsOf(daemon.pid)
    const times = await changeTimes(cluster, host, nodes, rate)
    const used = processorSecondsOf(daemon.pid) - before
    for (const time of times) measured(`${backend} churn`, time)
    measured(`${backend} churn processor`, used)
    measured(`${backend} churn resident`, memoryOf(daemon.pid).resident)
    progress(`${side.name} ${backend}: ${times.length} changes, ${used.toFixed(2)} s of processor time`)
    const unseen = rate.perSecond * rate.seconds - times.length
    if (unseen > 0) note(`${side.name}, ${backend}: ${unseen} changes were never in the kernel, undone before`)
  })
}

/**
 * Milliseconds from before the request to etcd until the kernel announced the route, or that it is gone; of those that
 * the kernel got.
 */
async function changeTimes(
  cluster: Cluster,
  host: Host,
  nodes: number,
  { perSecond, seconds }: Churn
): Promise<readonly number[]> {
  await using monitor = await RouteMonitor.start(host)
  // Each lease comes and goes: two changes.
  const { changes = [] } = await cluster.churn(nodes, (perSecond * seconds) / 2, perSecond)
  const last = changes.at(-1)
  const announced = () => new Map(monitor.changes().map((each) => [keyOf(each.gone, each.route), each.atMs]))
  const lastSeen = () => last !== undefined && announced().has(keyOf(last.gone, prefixOf(last.subnet)))
  await until(() => fakeRoutes(host) === nodes && lastSeen(), { what: 'the last change', deadlineMs: 120_000 })
  const seen = announced()
  return changes.flatMap(({ gone, subnet, begunMs }) => {
    const at = seen.get(keyOf(gone, prefixOf(subnet)))
    return at === undefined ? [] : [at - begunMs]
  })
}

const prefixOf = (subnet: string): string => subnet.replace('-', '/')

const keyOf = (gone: boolean, route: string): string => `${gone ? 'gone' : 'there'} ${route.split(' ')[0]}`
