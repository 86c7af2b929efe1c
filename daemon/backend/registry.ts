// Every backend by the name it has in `Backend.Type`.

import { WeftError } from '../base/error.ts'
import { DEFAULT_BACKEND, type JsonObject } from '../config/net-conf.ts'
import type { Backend, ConfiguredBackend } from './backend.ts'
import { hostGw } from './host-gw.ts'
import { vxlan } from './vxlan.ts'

const BACKENDS = new Map([entry(vxlan), entry(hostGw)])

function entry<Config>(backend: Backend<Config>): readonly [string, (keys: JsonObject) => ConfiguredBackend] {
  const configured = (keys: JsonObject): ConfiguredBackend => {
    const config = backend.config(keys)
    return {
      type: backend.type,
      keys: backend.keys,
      mtu: (node) => backend.mtu(node, config),
      underlayMtu: (node) => backend.underlayMtu(node, config),
      publish: (node) => backend.publish(node, config),
      own: (node) => backend.own(node, config),
      peer: (lease, node) => backend.peer(lease, node, config)
    }
  }
  return [backend.type, configured]
}

/** The backend of this name with its keys read. Errors: CONFIG_INVALID naming the type and those there are, or the key that is wrong. */
export function configureBackend(type: string, keys: JsonObject): ConfiguredBackend {
  const configured = BACKENDS.get(type.toLowerCase())
  if (configured !== undefined) return configured(keys)
  const known = `this version knows ${[...BACKENDS.keys()].join(', ')}`
  if (keys === DEFAULT_BACKEND)
    throw new WeftError(
      'CONFIG_INVALID',
      `Backend is missing, which means ${JSON.stringify(type)} as it does with flannel; ${known}: add "Backend":{"Type":"vxlan"}`,
      'add "Backend":{"Type":"vxlan"} to the network configuration'
    )
  throw new WeftError(
    'CONFIG_INVALID',
    `Backend.Type is ${JSON.stringify(type)}; ${known}`,
    'set Backend.Type to one of these'
  )
}
