// Routes of a configuration or of a result as values.
import { parseIp, parsePrefix } from '../../ipam/address.ts'
import type { InterfaceRoute } from '../attachment.ts'
import { entries, type Field } from '../cni/field.ts'
import { readRoute } from '../cni/result.ts'
import type { ResultRoute } from '../cni/types.ts'

/** A list of routes, `ipam.routes` for example. Errors: FieldError. */
export const routesIn = (list: Field): readonly InterfaceRoute[] =>
  entries(list).flatMap((entry) => routeFrom(readRoute(entry)) ?? [])

/** `undefined` where `dst` is not a prefix, which readRoute() rules out. */
export function routeFrom({ dst, gw, ...rest }: ResultRoute): InterfaceRoute | undefined {
  const [destination, gateway] = [parsePrefix(dst), parseIp(gw ?? '')]
  return destination && { destination, ...(gateway && { gateway }), ...rest }
}
