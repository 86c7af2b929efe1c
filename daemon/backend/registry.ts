// All backends by the name they have in `Backend.Type`. A new backend is one file beside this one and one line in
// BACKENDS.
import { WeftError } from '../base/error.ts'
import type { JsonObject } from '../config/json.ts'
import { DEFAULT_BACKEND } from '../config/net-conf.ts'
import type { Lease } from '../lease/lease.ts'
import type { Link } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import type { Backend, Claim, ConfiguredBackend } from './backend.ts'
import { hostGw } from './host-gw.ts'
import { vxlan } from './vxlan.ts'

/** The backends of this version. */
export const BACKENDS: readonly Backend<unknown>[] = [vxlan, hostGw]

export type Registry = {
  /** Files of secrets that weftd writes, of all backends: removed when Weft leaves the host. */
  readonly secretFiles: readonly string[]
  /**
   * The backend of this name, in any letter case, with its keys read. Errors: CONFIG_INVALID naming the type and the
   * known ones, or the invalid key.
   */
  configure(type: string, keys: JsonObject): ConfiguredBackend
  /** Whose device this is by any backend, whichever is configured: devices of the previous backend are found too. */
  readonly recognises: Recognises
  /** The backend whose device flanneld gives this name; `undefined` for all other devices. */
  flannelDevice(name: string): { readonly backend: string; readonly outlivesFlanneld: boolean } | undefined
  /** What the lease's own backend says, whichever is configured here. */
  claims(lease: Lease): readonly Claim[]
  /** The same for our device among `links`: with another backend than before our lease is still found. */
  namesOurDevice(lease: Lease, links: readonly Link[]): boolean
  namesAnotherDevice(lease: Lease, links: readonly Link[]): boolean
}

export function registry(backends: readonly Backend<unknown>[]): Registry {
  const byType = new Map(backends.map((backend) => [backend.type, backend]))
  const known = `this version knows ${[...byType.keys()].join(', ')}`
  return {
    secretFiles: backends.flatMap(({ secret }) => secret?.files.slice(0, 1) ?? []),
    configure: (type, keys) => {
      const backend = byType.get(type.toLowerCase())
      if (backend === undefined) throw unknownType(type, keys, known)
      return configured(backend, keys)
    },
    recognises: (device) => {
      for (const backend of backends) {
        const recognised = backend.recognises(device)
        if (recognised !== undefined) return recognised
      }
      return undefined
    },
    flannelDevice: (name) =>
      backends.flatMap(({ type, flannelDevice }) =>
        flannelDevice?.name.test(name) ? [{ backend: type, outlivesFlanneld: flannelDevice.outlivesFlanneld }] : []
      )[0],
    claims: (lease) => byType.get(lease.backendType)?.claims(lease) ?? [],
    namesOurDevice: (lease, links) => byType.get(lease.backendType)?.namesOurDevice(lease, links) ?? false,
    namesAnotherDevice: (lease, links) => byType.get(lease.backendType)?.namesAnotherDevice(lease, links) ?? false
  }
}

function configured<Config>(backend: Backend<Config>, keys: JsonObject): ConfiguredBackend {
  const config = backend.config(keys)
  const [plain, markedOuter] = [backend.plain?.(config), backend.markedOuter?.(config)]
  return {
    type: backend.type,
    keys: backend.keys,
    features: backend.features(config),
    ...(backend.secret && { secret: backend.secret }),
    ports: backend.ports?.(config) ?? [],
    ...(markedOuter && { markedOuter }),
    mtu: (node) => backend.mtu(node, config),
    underlayMtu: (node) => backend.underlayMtu(node, config),
    publish: (node) => backend.publish(node, config),
    own: (node) => backend.own(node, config),
    held: backend.held,
    heldByAll: backend.heldByAll,
    asksRoutes: backend.asksRoutes?.(config) ?? false,
    peer: (lease, node, routes = {}) => backend.peer(lease, node, config, routes),
    ...(plain !== undefined && { plain })
  }
}

function unknownType(type: string, keys: JsonObject, known: string): WeftError {
  if (keys === DEFAULT_BACKEND)
    return new WeftError(
      'CONFIG_INVALID',
      `Backend is missing, which means ${JSON.stringify(type)} as it does with flannel; ${known}: add "Backend":{"Type":"vxlan"}`,
      'add "Backend":{"Type":"vxlan"} to the network configuration'
    )
  return new WeftError(
    'CONFIG_INVALID',
    `Backend.Type is ${JSON.stringify(type)}; ${known}`,
    'set Backend.Type to one of these'
  )
}
