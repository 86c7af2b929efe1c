// Chooses a backend's data path: the first whose features this kernel has. Waits while there is none, since an
// administrator may load a module at any time.
import type { ConfiguredBackend } from '../backend/backend.ts'
import type { Registry } from '../backend/registry.ts'
import { Backoff, retry } from '../base/backoff.ts'
import type { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Health } from '../health/health.ts'
import type { Feature } from '../state/feature.ts'
import type { Node } from '../state/node.ts'

export type DataPathDeps = {
  /** One error for each of these that the kernel can't make. */
  readonly lacking: (features: readonly Feature[]) => Promise<readonly WeftError[]>
  /** What the backends need, for the list of those that this kernel can do. */
  readonly needs: Registry['needs']
  readonly health: Pick<Health, 'raise' | 'clear'>
  readonly log: Log
}

/** The choice, made once for each backend. */
export class DataPaths {
  readonly #deps: DataPathDeps
  readonly #chosen = new Map<string, string>()

  constructor(deps: DataPathDeps) {
    this.#deps = deps
  }

  /** Raises KERNEL_FEATURE until there is one. Rejects when the signal aborts. */
  async of(backend: ConfiguredBackend, signal: AbortSignal): Promise<Pick<Node, 'dataPath'>> {
    const { type, dataPaths } = backend
    if (dataPaths.length === 0) return {}
    const known = this.#chosen.get(type)
    if (known !== undefined) return { dataPath: known }
    const dataPath = await retry(() => this.#attempt(backend), { signal, backoff: new Backoff() })
    this.#chosen.set(type, dataPath)
    return { dataPath }
  }

  async #attempt({ type, dataPaths }: ConfiguredBackend): Promise<string | undefined> {
    const { lacking, health, log } = this.#deps
    const failed: WeftError[] = []
    for (const { name, features } of dataPaths) {
      const missing = await lacking(features)
      if (missing.length === 0) {
        health.clear('KERNEL_FEATURE')
        const passedOver = failed.map(({ message }) => message)
        log.info({ backend: type, dataPath: name, ...(passedOver.length > 0 && { passedOver }) }, 'data path chosen')
        return name
      }
      failed.push(...missing)
    }
    const each = (part: 'message' | 'cure') => [...new Set(failed.map((error) => error[part]))].join('; ')
    const able = (await this.#ableTypes()).join(', ')
    health.raise(
      'KERNEL_FEATURE',
      `Backend.Type is "${type}": ${each('message')}; the types that it can do: ${able}`,
      `${each('cure')}; or set Backend.Type to one of ${able}`
    )
    return undefined
  }

  async #ableTypes(): Promise<readonly string[]> {
    const able: string[] = []
    for (const { type, oneOf } of this.#deps.needs) {
      for (const features of oneOf) {
        if ((await this.#deps.lacking(features)).length > 0) continue
        able.push(type)
        break
      }
    }
    return able
  }
}
