// A network configuration with its backend, and several of them while it changes.
import type { ConfiguredBackend } from '../backend/backend.ts'
import { mixed } from '../backend/mixed.ts'
import type { Registry } from '../backend/registry.ts'
import { type NetConf, parseNetConf } from '../config/net-conf.ts'

export type Configured = {
  readonly conf: NetConf
  readonly backend: ConfiguredBackend
  /** As the store has it. */
  readonly text: string
}

/** A configuration that some nodes still use. */
export type Earlier = Configured & {
  /** When this node began to change from it, in milliseconds since 1970. */
  readonly since: number
}

/** What this node uses: `backend` serves the nodes of all these configurations. */
export type InUse = Configured & {
  /** The configuration that it has changed to. */
  readonly read: Configured
  /** The latest first. */
  readonly earlier: readonly Earlier[]
}

/** Parses a configuration; `place` says in messages where it is from. Errors: CONFIG_INVALID. */
export function configured(text: string, place: string, backends: Pick<Registry, 'configure'>): Configured {
  const conf = parseNetConf(text, place)
  return { text, conf, backend: backends.configure(conf.backendType, conf.backend) }
}

export function inUseWith({ text, conf, backend }: Configured, earlier: readonly Earlier[] = []): InUse {
  const read = { text, conf, backend }
  return {
    ...{ text, conf, read, earlier },
    backend: mixed(
      backend,
      earlier.map((each) => each.backend)
    )
  }
}
