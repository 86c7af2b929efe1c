// All backends by the name they have in `Backend.Type`. A new backend is one file beside this one and one line in
// BACKENDS.
import { WeftError } from '../base/error.ts'
import type { JsonObject } from '../config/json.ts'
import { type Lease, typeOf } from '../lease/lease.ts'
import type { Feature } from '../state/feature.ts'
import type { Link } from '../state/object.ts'
import type { Recognises } from '../state/ownership.ts'
import { alloc } from './alloc.ts'
import type { Backend, Claim, ConfiguredBackend } from './backend.ts'
import { extension } from './extension.ts'
import { hostGw } from './host-gw.ts'
import { ipip } from './ipip.ts'
import { REFUSED_TYPES } from './refused-types.ts'
import { udp } from './udp.ts'
import { vxlan } from './vxlan.ts'
import { wireguard } from './wireguard.ts'

/** The backends of this version. */
export const BACKENDS: readonly Backend<unknown>[] = [vxlan, hostGw, udp, ipip, wireguard, alloc, extension]

export type Registry = {
  /** Files of secrets that weftd writes, of all backends: removed when Weft leaves the host. */
  readonly secretFiles: readonly string[]
  /**
   * The backend of this name, in any letter case, with its keys read. Errors: CONFIG_INVALID naming the type and the
   * known ones, or the invalid key.
   */
  configure(type: string, keys: JsonObject): ConfiguredBackend
  /** What each type needs with its default keys: of several sets of features one. */
  readonly needs: readonly { readonly type: string; readonly oneOf: readonly (readonly Feature[])[] }[]
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

/** `permit` throws CONFIG_INVALID for a configured backend that this node's administrator does not allow. */
export function registry(
  backends: readonly Backend<unknown>[],
  permit: (backend: ConfiguredBackend) => void = () => undefined
): Registry {
  const byType = new Map(backends.map((backend) => [backend.type, backend]))
  const known = `this version knows ${[...byType.keys()].join(', ')}`
  return {
    secretFiles: backends.flatMap(({ secret }) => secret?.files.slice(0, 1) ?? []),
    configure: (type, keys) => {
      const backend = byType.get(type.toLowerCase())
      if (backend === undefined) throw unknownType(type, known)
      const read = configured(backend, keys)
      permit(read)
      return read
    },
    needs: backends.map(needsOf),
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
    claims: (lease) => byType.get(typeOf(lease))?.claims(lease) ?? [],
    namesOurDevice: (lease, links) => byType.get(typeOf(lease))?.namesOurDevice(lease, links) ?? false,
    namesAnotherDevice: (lease, links) => byType.get(typeOf(lease))?.namesAnotherDevice(lease, links) ?? false
  }
}

function needsOf<Config>(backend: Backend<Config>): Registry['needs'][number] {
  const config = backend.config({})
  const features = backend.features(config)
  const paths = backend.dataPaths?.(config) ?? [{ features: [] }]
  return { type: backend.type, oneOf: paths.map((path) => [...features, ...path.features]) }
}

function configured<Config>(backend: Backend<Config>, keys: JsonObject): ConfiguredBackend {
  const config = backend.config(keys)
  const { entry, refusesRest } = backend
  const [plain, markedOuter] = [backend.plain?.(config), backend.markedOuter?.(config)]
  const commands = backend.commands?.(config)
  return {
    type: backend.type,
    keys: backend.keys,
    features: backend.features(config),
    dataPaths: backend.dataPaths?.(config) ?? [],
    ...(backend.secret && { secret: backend.secret }),
    ports: backend.ports?.(config) ?? [],
    ...(entry && { entry: (node) => entry(node, config) }),
    ...(markedOuter && { markedOuter }),
    ...(refusesRest && { refusesRest }),
    ...(commands && { commands }),
    mtu: (node) => backend.mtu(node, config),
    underlayMtu: (node) => backend.underlayMtu(node, config),
    publish: (node) => backend.publish(node, config),
    own: (node) => backend.own(node, config),
    serves: (lease) => typeOf(lease) === backend.type && (backend.serves?.(lease, config) ?? true),
    held: (subnet) => backend.held(subnet),
    heldByAll: backend.heldByAll,
    asksRoutes: backend.asksRoutes?.(config) ?? false,
    ...(backend.onlyBy && { onlyBy: (node) => backend.onlyBy?.(node, config) ?? [] }),
    peer: (lease, node, routes = {}) => backend.peer(lease, node, config, routes),
    ...(plain !== undefined && { plain })
  }
}

function unknownType(type: string, known: string): WeftError {
  const refusal = REFUSED_TYPES[type.toLowerCase()]
  const why = refusal === undefined ? '' : `, which Weft does not have: ${refusal.why}`
  return new WeftError(
    'CONFIG_INVALID',
    `Backend.Type is ${JSON.stringify(type)}${why}; ${known}`,
    refusal?.instead ?? 'set Backend.Type to one of these'
  )
}
