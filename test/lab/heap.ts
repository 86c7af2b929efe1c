// What a daemon's JavaScript holds once garbage is collected, from V8's heap snapshot: unlike resident pages it does
// not depend on when V8 collects.
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Host } from './host.ts'
import { until } from './run.ts'

interface Snapshot {
  readonly snapshot: { readonly meta: { readonly node_fields: readonly string[] } }
  readonly nodes: readonly number[]
}

/** A snapshot of weftd's heap, and of what C++ allocates for it. */
export class HeapWatch implements AsyncDisposable {
  /** For NODE_OPTIONS of the daemon that is watched. */
  readonly nodeOptions: string
  /** As this process sees it. */
  readonly #directory: string

  private constructor(directory: string, inside: string) {
    this.#directory = directory
    this.nodeOptions = `--heapsnapshot-signal=SIGUSR2 --diagnostic-dir=${inside}`
  }

  /** For a daemon on this host. */
  static async create(host: Host): Promise<HeapWatch> {
    const directory = await mkdtemp(host.path('/run/weft-heap-'))
    return new HeapWatch(directory, directory.slice(host.path('').length))
  }

  /** MiB that are reachable now. */
  async reachableMiB(pid: number): Promise<number> {
    process.kill(pid, 'SIGUSR2')
    const { snapshot, nodes } = await until(() => this.#take(), { what: `a heap snapshot of process ${pid}` })
    const fields = snapshot.meta.node_fields
    const at = fields.indexOf('self_size')
    let bytes = 0
    for (let index = at; index < nodes.length; index += fields.length) bytes += nodes[index] ?? 0
    return bytes / (1 << 20)
  }

  /** Throws until the file is complete. */
  async #take(): Promise<Snapshot | undefined> {
    const [file] = await readdir(this.#directory)
    if (file === undefined) return undefined
    const path = join(this.#directory, file)
    const snapshot = JSON.parse(await readFile(path, 'utf8')) as Snapshot
    await rm(path)
    return snapshot
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true })
  }
}
