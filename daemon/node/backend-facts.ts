// What only a backend whose configuration is accepted asks of the host: its secret, and its data path.
import type { ConfiguredBackend } from '../backend/backend.ts'
import type { Node } from '../state/node.ts'
import { type DataPathDeps, DataPaths } from './data-path.ts'
import { BackendSecrets } from './secret-file.ts'

export class BackendFacts {
  readonly #secrets: BackendSecrets
  readonly #dataPaths: DataPaths

  constructor(deps: DataPathDeps) {
    this.#secrets = new BackendSecrets(deps.log)
    this.#dataPaths = new DataPaths(deps)
  }

  /** Errors: KERNEL_FEATURE_MISSING when this kernel has none of the backend's data paths. */
  async check(backend: ConfiguredBackend): Promise<void> {
    await this.#dataPaths.of(backend)
  }

  /** Errors: as `check`. */
  async of(backend: ConfiguredBackend): Promise<Pick<Node, 'secret' | 'dataPath'>> {
    const dataPath = await this.#dataPaths.of(backend)
    return { ...this.#secrets.of(backend), ...dataPath }
  }
}
