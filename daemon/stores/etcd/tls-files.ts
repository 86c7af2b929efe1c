// The certificates and key for etcd: read from disk at the start, and again while weftd runs, since they are rotated.
import { createSecureContext } from 'node:tls'
import { FileReader, LARGE_FILE, readFile } from '../../../ipam/read-file.ts'
import { reasonOf, WeftError } from '../../base/error.ts'

export type TlsPaths = {
  readonly keyFile?: string | undefined
  readonly certFile?: string | undefined
  readonly caFile?: string | undefined
}

/** As grpc takes them; `null`: not configured. Without an authority those that Node trusts apply. */
export type TlsContent = { readonly ca: Buffer | null; readonly key: Buffer | null; readonly cert: Buffer | null }

/** Milliseconds after which the files are read again; after a request that failed, sooner. */
const FRESH = 60_000
const AFTER_FAILURE = 1_000

export class TlsFiles {
  readonly #paths: TlsPaths
  readonly #changed: () => void
  readonly #reader = new FileReader()
  #content: TlsContent
  #readAt = performance.now()
  #reading = false

  /** `changed` is called when other content has been read. Errors: OPTION_INVALID when a file can't be read. */
  constructor(paths: TlsPaths, changed: () => void) {
    this.#paths = paths
    this.#changed = changed
    this.#content = readAll(paths)
  }

  get content(): TlsContent {
    return this.#content
  }

  /**
   * Reads the files in the background when they were read too long ago. What can't be read, and a certificate whose key
   * has not been replaced yet, leaves the last content in use.
   */
  renew(afterFailure = false): void {
    const { caFile, keyFile, certFile } = this.#paths
    if (this.#reading || (caFile ?? keyFile ?? certFile) === undefined) return
    if (performance.now() - this.#readAt < (afterFailure ? AFTER_FAILURE : FRESH)) return
    this.#reading = true
    void this.#readAgain()
      .catch(() => undefined)
      .finally(() => {
        this.#readAt = performance.now()
        this.#reading = false
      })
  }

  async #readAgain(): Promise<void> {
    const read = async (path: string | undefined): Promise<Buffer | null> =>
      path === undefined ? null : Buffer.from(await this.#reader.text(path, LARGE_FILE))
    const { caFile, keyFile, certFile } = this.#paths
    const content = { ca: await read(caFile), key: await read(keyFile), cert: await read(certFile) }
    if ((['ca', 'key', 'cert'] as const).every((name) => same(content[name], this.#content[name]))) return
    const { ca, key, cert } = content
    createSecureContext({ ...(ca && { ca }), ...(key && { key }), ...(cert && { cert }) })
    this.#content = content
    this.#changed()
  }
}

const same = (a: Buffer | null, b: Buffer | null): boolean => a === b || (a !== null && b !== null && a.equals(b))

/** Read even if no endpoint needs them. */
function readAll({ caFile, keyFile, certFile }: TlsPaths): TlsContent {
  const read = (option: string, path: string | undefined): Buffer | null => {
    if (path === undefined) return null
    try {
      return readFile(path, LARGE_FILE)
    } catch (cause) {
      throw new WeftError(
        'OPTION_INVALID',
        `${option} ${path} cannot be read: ${reasonOf(cause)}`,
        `correct ${option} or the file's owner and mode`,
        { cause }
      )
    }
  }
  return {
    ca: read('--etcd-cafile', caFile),
    key: read('--etcd-keyfile', keyFile),
    cert: read('--etcd-certfile', certFile)
  }
}
