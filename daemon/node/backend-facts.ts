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

  /** Waits until the kernel has a data path of the backend. Rejects when the signal aborts. */
  async of(backend: ConfiguredBackend, signal: AbortSignal): Promise<Pick<Node, 'secret' | 'dataPath'>> {
    const dataPath = await this.#dataPaths.of(backend, signal)
    return { ...this.#secrets.of(backend), ...dataPath }
  }
}
