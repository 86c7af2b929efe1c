// Applies objects inside a container's namespace, where other interfaces may have routes to the same destinations.
import { samePrefix } from '../../ipam/address.ts'
import type { Attachment } from '../../plugins/attachment.ts'
import { put } from '../state/difference.ts'
import type { Outcome, Sandbox } from '../state/kernel.ts'
import { type KernelObject, keyOf, type Route, type State } from '../state/object.ts'
import type { PodContext } from './context.ts'

/** Errors: SANDBOX_GONE, SANDBOX_INVALID. */
export const openSandbox = (
  { kernel }: Pick<PodContext, 'kernel'>,
  { sandbox = '', mayBeOwnNamespace }: Pick<Attachment, 'sandbox' | 'mayBeOwnNamespace'>
): Promise<Sandbox> => kernel.sandbox(sandbox, mayBeOwnNamespace === true)

/**
 * Applies these objects in order. A route whose destination and metric are taken by another interface's gets the next
 * free metric: the first interface's default route stays in use, and when that interface goes, the next one takes over.
 */
export async function applyInside(sandbox: Sandbox, objects: readonly KernelObject[]): Promise<readonly Outcome[]> {
  const outcomes = await sandbox.apply(objects.map(put))
  if (!outcomes.some(isTaken)) return outcomes
  const observed = new Map(await sandbox.read())
  const settled: Outcome[] = []
  for (const outcome of outcomes) {
    const { object } = outcome.change
    if (!isTaken(outcome) || object.kind !== 'route') {
      settled.push(outcome)
      continue
    }
    const behind = after(object, (key) => !observed.has(key))
    observed.set(keyOf(behind), behind)
    settled.push(...(await sandbox.apply([put(behind)])))
  }
  return settled
}

const isTaken = ({ change: { object }, error }: Outcome): boolean =>
  object.kind === 'route' &&
  object.yields === true &&
  error !== undefined &&
  'errnoName' in error &&
  error.errnoName === 'EEXIST'

/**
 * The route with the metric that applyInside() gave it, which it keeps when the interface that had the place is gone;
 * as requested if its device has no such route.
 */
export function withActualMetric(route: Route, observed: State): Route {
  if (!route.yields) return route
  const metrics = placesOf(route, observed).flatMap(({ device, metric }) => (device === route.device ? [metric] : []))
  return metrics.length === 0 ? route : { ...route, metric: Math.min(...metrics) }
}

/** The same with another interface's metric if the route's own device has none: for routes of which any will do. */
export function withAnyMetric(route: Route, observed: State): Route {
  const own = withActualMetric(route, observed)
  const metrics = placesOf(route, observed).map(({ metric }) => metric)
  return observed.has(keyOf(own)) || metrics.length === 0 ? own : { ...route, metric: Math.min(...metrics) }
}

/** Routes to that destination with its metric or, as they may have come later, a larger one. */
const placesOf = ({ table, destination, metric }: Route, observed: State): readonly Route[] =>
  [...observed.values()].filter(
    (each): each is Route =>
      each.kind === 'route' &&
      each.table === table &&
      each.metric >= metric &&
      samePrefix(each.destination, destination)
  )

function after(route: Route, isFree: (key: ReturnType<typeof keyOf>) => boolean): Route {
  let behind = { ...route, metric: route.metric + 1 }
  while (!isFree(keyOf(behind))) behind = { ...behind, metric: behind.metric + 1 }
  return behind
}
