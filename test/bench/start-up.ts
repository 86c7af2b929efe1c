// Rows of scripts/bench converge about routes: all leases at start, one new lease, one deleted route; and what memory
// the daemon has then.
import { setTimeout as pause } from 'node:timers/promises'
import type { Host } from '../lab/host.ts'
import { until } from '../lab/run.ts'
import type { Backend, Cluster } from './cluster.ts'
import { fakeRoutes, memoryOf, RouteMonitor, vxlanEntries } from './kernel-watch.ts'
import { fakeLease } from './leases.ts'
import { progress } from './report.ts'
import type { Side } from './sides.ts'

/** Measured values by what was measured, for one side. */
export type Measured = (what: string, value: number) => void

/** Milliseconds after which a daemon has come to rest after its start. */
export const settledMs = 5_000

const prefixOf = (n: number) => fakeLease(n, 'vxlan').subnet.replace('-', '/')

/**
 * Waits until the kernel of a host has all routes of `count` made-up nodes, and for vxlan each one's FDB and neighbour
 * entry.
 */
export async function programmed(host: Host, backend: Backend, count: number, deadlineMs: number): Promise<void> {
  const routes = () => fakeRoutes(host) === count || { routes: fakeRoutes(host) }
  await until(() => routes() === true || undefined, { what: `${count} routes`, deadlineMs, everyMs: 25 }).catch(
    (cause: unknown) => {
      throw new Error(`${fakeRoutes(host)} of ${count} routes after ${deadlineMs} ms`, { cause })
    }
  )
  if (backend !== 'vxlan') return
  const complete = async () => {
    const { fdb, neighbours } = await vxlanEntries(host)
    return fdb === count && neighbours === count
  }
  await until(complete, { what: `${count} FDB and neighbour entries`, deadlineMs: 10_000 }).catch(
    async (cause: unknown) => {
      throw new Error(
        `routes are complete, other entries are not: ${JSON.stringify(await vxlanEntries(host))} of ${count}`,
        { cause }
      )
    }
  )
}

/**
 * Lease events while the daemon runs, one after the other: from the moment before the request to etcd until the route
 * was announced by the kernel.
 */
async function newLeases(
  cluster: Cluster,
  host: Host,
  present: number,
  count: number,
  note: (milliseconds: number) => void
): Promise<void> {
  await using monitor = await RouteMonitor.start(host)
  for (let n = present; n < present + count; n++) {
    const { begunMs } = await cluster.write('put', n, 1)
    const seen = () => monitor.changes().find(({ gone, route }) => !gone && route.startsWith(`${prefixOf(n)} `))
    const change = await until(seen, { what: `the route of new node ${n}`, everyMs: 5 })
    note(change.atMs - begunMs)
  }
  await cluster.write('remove', present, count)
  await until(() => fakeRoutes(host) === present || undefined, { what: 'removed leases to leave no route' })
}

/** One round of one side: start with `nodes` leases, memory, then new leases. */
export async function startUp(
  cluster: Cluster,
  side: Side,
  backend: Backend,
  nodes: number,
  events: number,
  measured: Measured
): Promise<void> {
  await cluster.withNode(side, { wait: false }, async ({ host, daemon, begunMs }) => {
    await programmed(host, backend, nodes, 900_000)
    measured(`${backend} start`, (Date.now() - begunMs) / 1000)
    progress(`${side.name} ${backend}: ${nodes} leases in ${Date.now() - begunMs} ms`)
    // What follows is about every day, not about the start.
    await pause(settledMs)
    if (events > 0)
      await newLeases(cluster, host, nodes, events, (milliseconds) => measured(`${backend} new lease`, milliseconds))
    const { resident, anonymous } = memoryOf(daemon.pid)
    measured(`${backend} resident`, resident)
    measured(`${backend} anonymous`, anonymous)
  })
}

/**
 * Deletes routes by hand, one after the other, and waits for each to be back; `null` for one that is not back at the
 * deadline.
 */
export async function deletedRoutes(
  cluster: Cluster,
  side: Side,
  backend: Backend,
  nodes: number,
  rounds: number,
  deadlineMs: number
): Promise<readonly (number | null)[]> {
  return cluster.withNode(side, { wait: true }, async ({ host, daemon }) => {
    await programmed(host, backend, nodes, 60_000)
    await using monitor = await RouteMonitor.start(host)
    const times: (number | null)[] = []
    for (let n = 0; n < Math.min(rounds, nodes); n++) {
      // A daemon that looks every 10 s would otherwise always be met just after it looked.
      await pause((n % 5) * 2_000)
      await host.exec('ip', ['route', 'del', prefixOf(n)])
      const gone = await until(
        () => monitor.changes().find(({ gone, route }) => gone && route.startsWith(`${prefixOf(n)} `)),
        { what: 'the deletion' }
      )
      const back = () =>
        monitor
          .changes()
          .find((change) => !change.gone && change.atMs >= gone.atMs && change.route.startsWith(`${prefixOf(n)} `))
      const change = await until(back, { what: 'the route', deadlineMs, everyMs: 5 }).catch(() => undefined)
      times.push(change ? change.atMs - gone.atMs : null)
      if (!change) break
    }
    progress(
      `${side.name} ${backend}: deleted routes back after ${times.map((time) => time ?? 'never').join(', ')} ms; ${memoryOf(daemon.pid).resident} MB`
    )
    return times
  })
}

/** Memory of the daemon with few nodes, after it is ready. */
export async function smallMemory(cluster: Cluster, side: Side, nodes: number, measured: Measured): Promise<void> {
  await cluster.withNode(side, { wait: true }, async ({ host, daemon }) => {
    await programmed(host, 'vxlan', nodes, 60_000)
    await pause(settledMs)
    const { resident, anonymous } = memoryOf(daemon.pid)
    measured('few resident', resident)
    measured('few anonymous', anonymous)
  })
}
