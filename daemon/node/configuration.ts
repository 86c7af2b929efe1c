// The network configuration in the store: waits until it is valid, then compares each change in the store with the one
// in use.
import type { Registry } from '../backend/registry.ts'
import { Backoff, retry } from '../base/backoff.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import { configurationChanges } from '../config/changes.ts'
import { quotable } from '../config/last.ts'
import { parseNetConf } from '../config/net-conf.ts'
import type { Health } from '../health/health.ts'
import type { Store } from '../lease/store.ts'
import { type Configured, configured } from './configured.ts'
import type { Decision } from './plan-change.ts'
import { unknownKeys } from './unknown-keys.ts'

export type ConfigurationDeps = {
  readonly store: Pick<Store, 'configuration' | 'configurationPlace'>
  readonly backends: Pick<Registry, 'configure'>
  readonly health: Pick<Health, 'raise' | 'clear'>
  /** What this node's interface refuses of a configuration that can be parsed. Errors: CONFIG_INVALID. */
  readonly refuse?: (read: Configured) => void
  /** `pending` has changed. */
  readonly changed?: () => void
}

/** Milliseconds until an invalid configuration is read again. */
const RETRY = 1_000

/** Conditions while a configuration is not accepted. */
const REFUSALS = ['CONFIG_INVALID', 'KERNEL_FEATURE'] as const

export class Configuration {
  readonly #deps: ConfigurationDeps
  #inUse: Configured | undefined
  /** What the store last reported. */
  #stored: { readonly text: string | undefined } | undefined
  #pending: Configured | undefined

  constructor(deps: ConfigurationDeps) {
    this.#deps = deps
  }

  /** A valid configuration of the store that means something else than the one in use. */
  get pending(): Configured | undefined {
    return this.#pending
  }

  get #place(): string {
    return this.#deps.store.configurationPlace
  }

  /**
   * Resolves with a valid configuration and what `check` returns for it. An invalid one is read again until somebody
   * corrects it.
   */
  async read<T>(signal: AbortSignal, check: (read: Configured) => Promise<T>): Promise<readonly [Configured, T]> {
    const { store, backends, health } = this.#deps
    /** The text for which CONFIG_INVALID is raised. */
    let refused: string | undefined
    const attempt = async (): Promise<readonly [Configured, T] | undefined> => {
      const text = await store.configuration(signal)
      try {
        const read = configured(text, this.#place, backends)
        // It can be parsed. `check` may take long, while there is no interface.
        if (text !== refused) health.clear('CONFIG_INVALID')
        this.#reportUnknownKeys(read)
        const found = await check(read)
        for (const code of REFUSALS) health.clear(code)
        return [read, found]
      } catch (error) {
        if (!(error instanceof WeftError)) throw error
        refused = text
        const code = error.code === 'KERNEL_FEATURE_MISSING' ? 'KERNEL_FEATURE' : 'CONFIG_INVALID'
        for (const other of REFUSALS) if (other !== code) health.clear(other)
        health.raise(code, withPlace(reasonOf(error), this.#place), error.cure)
        return undefined
      }
    }
    return retry(attempt, { signal, backoff: Backoff.constant(RETRY) })
  }

  /** Sets the configuration in use. */
  use(inUse: Configured): void {
    this.#inUse = inUse
    this.#reportUnknownKeys(inUse)
    this.#compare()
  }

  /** The store reports its present text, or that there is none. */
  stored(text: string | undefined): void {
    this.#stored = { text }
    this.#compare()
  }

  /** flannel ignores unknown keys, and so do we, but most are misspelled. */
  #reportUnknownKeys({ text, backend }: Configured): void {
    const { health } = this.#deps
    const unknown = unknownKeys(text, backend)
    if (unknown.length === 0) {
      health.clear('CONFIG_KEY_UNKNOWN')
      return
    }
    const [texts, paths] = [unknown.map((key) => key.text), unknown.map(({ path }) => path)]
    const cure = `correct or remove ${paths.join(', ')} in ${this.#place}`
    health.raise('CONFIG_KEY_UNKNOWN', `${this.#place}: ${texts.join('; ')}`, cure)
  }

  #compare(): void {
    if (this.#inUse === undefined || this.#stored === undefined) return
    const { health, backends, changed } = this.#deps
    const { text } = this.#stored
    this.#pending = undefined
    const wrong = text === undefined ? 'there is none any more' : this.#refusal(text)
    if (text === undefined || wrong !== undefined)
      health.raise('CONFIG_CHANGED', `${this.#place}: ${wrong}`, this.#restore(this.#inUse.text))
    else if (configurationChanges(this.#inUse.conf, parseNetConf(text, 'it')).length === 0)
      health.clear('CONFIG_CHANGED')
    else {
      this.#pending = configured(text, this.#place, backends)
      changed?.()
    }
  }

  /** The pending configuration is not taken. */
  refuse({ reasons, by }: Pick<Extract<Decision, { kind: 'refused' }>, 'reasons' | 'by'>): void {
    const [inUse, pending] = [this.#inUse, this.#pending]
    if (inUse === undefined || pending === undefined) return
    const changes = configurationChanges(inUse.conf, pending.conf)
    const cure = by === 'renumbering' ? this.#renumber(inUse.text) : this.#apply(inUse.text)
    const detail = `${this.#place}: ${changes.join('; ')}: not taken, since ${reasons.join('; ')}`
    this.#deps.health.raise('CONFIG_CHANGED', detail, cure)
  }

  /** What a starting weftd would say against it. */
  #refusal(text: string): string | undefined {
    try {
      this.#deps.refuse?.(configured(text, 'it', this.#deps.backends))
      return undefined
    } catch (error) {
      if (!(error instanceof WeftError)) throw error
      return `it is not valid: ${reasonOf(error)}`
    }
  }

  #apply(text: string): string {
    const old = quotable(text) ?? 'the old one'
    return `restore the one in use: write ${old} to ${this.#place}; or apply the new one with that loss: drain each node and restart weftd there`
  }

  /** Not the table's cure: pods keep their addresses, but those are no longer this node's. */
  #renumber(text: string): string {
    const old = quotable(text) ?? 'the old one'
    return `restore the one in use before any restart: write ${old} to ${this.#place}; or renumber: a node whose subnet no longer fits gets another when its weftd restarts, and its running pods are cut off until they are recreated, so drain each node first, then restart weftd there`
  }

  /** Not the table's cure: a weftd that starts with such a configuration serves no pods. */
  #restore(text: string): string {
    const inUse = quotable(text)
    const old = inUse === undefined ? 'the old one' : `the one in use, ${inUse},`
    return `correct it, or write ${old} to ${this.#place}; do not restart weftd before: it would serve no new pods`
  }
}

/** Errors about this node only, such as an MTU above its interface's, come from code that does not know the place. */
const withPlace = (reason: string, place: string): string =>
  reason.includes(place) ? reason : `${reason} (in ${place})`
