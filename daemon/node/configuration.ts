// The network configuration as the store has it: waited for until it is valid, and compared with the one in use whenever the store tells of it.
import { setTimeout as sleep } from 'node:timers/promises'
import type { ConfiguredBackend } from '../backend/backend.ts'
import { configureBackend } from '../backend/registry.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { configurationChanges } from '../config/changes.ts'
import { type NetConf, parseNetConf } from '../config/net-conf.ts'
import type { Health } from '../health/health.ts'
import type { Store } from '../lease/store.ts'
import { unknownKeys } from './unknown-keys.ts'

export type Configured = {
  readonly conf: NetConf
  readonly backend: ConfiguredBackend
  /** As the store has it. */
  readonly text: string
}

/** Milliseconds until an invalid one is read again. */
const AGAIN = 1_000

/** A configuration from its text; `place` names where that came from. Errors: CONFIG_INVALID. */
export function configured(text: string, place: string): Configured {
  const conf = parseNetConf(text, place)
  return { text, conf, backend: configureBackend(conf.backendType, conf.backend) }
}

export class Configuration {
  readonly #store: Pick<Store, 'configuration' | 'configurationPlace'>
  readonly #health: Pick<Health, 'raise' | 'clear'>
  #inUse: Configured | undefined
  /** What the store was last heard to hold. */
  #stored: { readonly text: string | undefined } | undefined

  constructor(store: Pick<Store, 'configuration' | 'configurationPlace'>, health: Pick<Health, 'raise' | 'clear'>) {
    this.#store = store
    this.#health = health
  }

  /** The configuration once it is there and valid, with what `suited` finds for it; one that is not is read again until somebody corrects it. */
  async read<T>(signal: AbortSignal, suited: (read: Configured) => Promise<T>): Promise<readonly [Configured, T]> {
    /** What CONFIG_INVALID is about. */
    let refused: string | undefined
    for (;;) {
      const text = await this.#store.configuration(signal)
      try {
        const read = configured(text, this.#store.configurationPlace)
        // This one can be read; whether it suits may take long to be known, while there is no interface.
        if (text !== refused) this.#health.clear('CONFIG_INVALID')
        this.#tellUnknownKeys(read)
        const found = await suited(read)
        this.#health.clear('CONFIG_INVALID')
        return [read, found]
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        refused = text
        this.#health.raise('CONFIG_INVALID', placed(reasonOf(error), this.#store.configurationPlace), error.cure)
        await sleep(AGAIN, undefined, { signal })
      }
    }
  }

  /** This node lives by it from now on. */
  use(inUse: Configured): void {
    this.#inUse = inUse
    this.#tellUnknownKeys(inUse)
    this.#compare()
  }

  /** The store holds this text, or none. */
  heard(text: string | undefined): void {
    this.#stored = { text }
    this.#compare()
  }

  /** flannel passes keys over that it does not know, and so do we, but a misspelled one is worth a word. */
  #tellUnknownKeys({ text, backend }: Configured): void {
    const unknown = unknownKeys(text, backend)
    if (unknown.length === 0) this.#health.clear('CONFIG_KEY_UNKNOWN')
    else this.#health.raise('CONFIG_KEY_UNKNOWN', `${this.#store.configurationPlace}: ${unknown.join('; ')}`)
  }

  /** A change is told, not taken over: other nodes still use the old one, and pods have its addresses. */
  #compare(): void {
    if (this.#inUse === undefined || this.#stored === undefined) return
    const { text } = this.#stored
    const changes = text === undefined ? ['there is none any more'] : changesIn(text, this.#inUse.conf)
    if (changes.length === 0) this.#health.clear('CONFIG_CHANGED')
    else this.#health.raise('CONFIG_CHANGED', `${this.#store.configurationPlace}: ${changes.join('; ')}`)
  }
}

/** What is wrong for this node only, as an MTU that its link does not carry, is found by those who know no place. */
const placed = (reason: string, place: string): string => (reason.includes(place) ? reason : `${reason} (in ${place})`)

function changesIn(text: string, inUse: NetConf): readonly string[] {
  try {
    return configurationChanges(inUse, parseNetConf(text, 'it'))
  } catch (error) {
    return [`what it holds now is not valid: ${reasonOf(error)}`]
  }
}
