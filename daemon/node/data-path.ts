// Chooses a backend's data path: the first whose features this kernel has. The error without one names what is missing,
// and the backends that this kernel can do.
import type { ConfiguredBackend } from '../backend/backend.ts'
import type { Registry } from '../backend/registry.ts'
import { WeftError } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import type { Feature } from '../state/feature.ts'
import type { Node } from '../state/node.ts'

export type DataPathDeps = {
  /** One error for each of these that the kernel can't make. */
  readonly lacking: (features: readonly Feature[]) => Promise<readonly WeftError[]>
  /** What the backends need, for the list of those that this kernel can do. */
  readonly needs: Registry['needs']
  readonly log: Log
  /** Milliseconds of the monotonic clock. */
  readonly now: () => number
}

/** Milliseconds before a kernel that had none is tried again: an administrator may load a module at any time. */
const RETRY = 10_000

export class DataPaths {
  readonly #deps: DataPathDeps
  /** By backend type, for as long as weftd runs. */
  readonly #chosen = new Map<string, string>()
  readonly #failed = new Map<string, { readonly error: WeftError; readonly at: number }>()

  constructor(deps: DataPathDeps) {
    this.#deps = deps
  }

  /** Errors: KERNEL_FEATURE_MISSING. */
  async of(backend: ConfiguredBackend): Promise<Pick<Node, 'dataPath'>> {
    const { type, dataPaths } = backend
    if (dataPaths.length === 0) return {}
    const known = this.#chosen.get(type)
    if (known !== undefined) return { dataPath: known }
    const failed = this.#failed.get(type)
    if (failed !== undefined && this.#deps.now() < failed.at + RETRY) throw failed.error
    const dataPath = await this.#choose(backend)
    this.#chosen.set(type, dataPath)
    return { dataPath }
  }

  async #choose({ type, dataPaths }: ConfiguredBackend): Promise<string> {
    const { lacking, log, now } = this.#deps
    const failed: WeftError[] = []
    for (const { name, features } of dataPaths) {
      const missing = await lacking(features)
      if (missing.length > 0) {
        failed.push(...missing)
        continue
      }
      const lacks = failed.map(({ message }) => message)
      log.info({ backend: type, dataPath: name, ...(lacks.length > 0 && { lacks }) }, 'data path chosen')
      return name
    }
    const error = without(type, failed, await this.#ableTypes())
    this.#failed.set(type, { error, at: now() })
    throw error
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

function without(type: string, failed: readonly WeftError[], able: readonly string[]): WeftError {
  const each = (part: 'message' | 'cure') => [...new Set(failed.map((error) => error[part]))].join('; ')
  return new WeftError(
    'KERNEL_FEATURE_MISSING',
    `Backend.Type is ${JSON.stringify(type)}, and ${each('message')}; the types that it can do: ${able.join(', ')}`,
    `${each('cure')}; or set Backend.Type to a type that it can do`
  )
}
