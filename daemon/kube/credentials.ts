// Credentials for the API server, read from disk again while weftd runs: kubelets renew tokens about hourly,
// administrators replace authorities.
import { FileReader, LARGE_FILE } from '../../ipam/read-file.ts'
import { reasonOf, WeftError } from '../base/error.ts'
import type { Json } from '../config/json.ts'
import { type KubeTarget, type Secret, targetOfKubeconfig, targetOfPod } from './config.ts'
import { type Issued, PluginCredentials, type PluginDeps } from './credential-plugin.ts'

export type AccessOptions = {
  readonly kubeApiUrl?: string | undefined
  readonly kubeconfigFile?: string | undefined
  /** In a pod KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name the API server. */
  readonly environment: Readonly<Record<string, string | undefined>>
}

/** As node:tls takes them. */
export type Credentials = {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly token?: string
}

/** Milliseconds after which files are read again. */
const FRESH = 60_000

/** The API server to use. The package `yaml` is loaded only for a kubeconfig. Errors: OPTION_INVALID. */
export async function targetOf({ kubeApiUrl, kubeconfigFile, environment }: AccessOptions): Promise<KubeTarget> {
  if (kubeconfigFile === undefined) return targetOfPod(environment, kubeApiUrl)
  const text = await readText(new FileReader(), kubeconfigFile, '--kubeconfig-file')
  const { parse } = await import('yaml')
  let config: unknown
  try {
    config = parse(text)
  } catch (cause) {
    // The parser's message quotes lines of the file, which may contain secrets.
    const at = (cause as { readonly linePos?: readonly { readonly line: number }[] }).linePos?.[0]?.line
    const where = at === undefined ? '' : ` (line ${at})`
    throw new WeftError(
      'OPTION_INVALID',
      `--kubeconfig-file ${kubeconfigFile} is not YAML${where}`,
      'compare it with the output of "kubectl config view --raw"'
    )
  }
  return targetOfKubeconfig(config as Json, kubeconfigFile, kubeApiUrl)
}

export class KubeAccess {
  readonly target: KubeTarget
  readonly #now: () => number
  readonly #plugin: PluginCredentials | undefined
  /** The files may be on a file system that does not answer. */
  readonly #files: FileReader
  #credentials: Credentials
  #readAt: number
  #renewing: Promise<boolean> | undefined
  /** What the plugin had issued when `#merged` was made of it and the files. */
  #issued: Issued | undefined
  #merged: Credentials

  private constructor(target: KubeTarget, now: () => number, plugin: PluginDeps, files: FileReader, read: Credentials) {
    this.target = target
    this.#now = now
    this.#plugin = target.plugin && new PluginCredentials(target.plugin, plugin)
    this.#files = files
    this.#credentials = read
    this.#merged = read
    this.#readAt = now()
  }

  /** `now` in monotonic milliseconds. Errors: OPTION_INVALID when a file can't be read. */
  static async open(
    target: KubeTarget,
    now: () => number,
    plugin: PluginDeps = { environment: {} },
    files = new FileReader()
  ): Promise<KubeAccess> {
    return new KubeAccess(target, now, plugin, files, await readAll(target, files))
  }

  /** Of the last reading; the same object while nothing has changed. */
  get credentials(): Credentials {
    const issued = this.#plugin?.issued
    if (issued === undefined) return this.#credentials
    if (issued !== this.#issued) {
      this.#issued = issued
      this.#merged = { ...this.#credentials, ...issued }
    }
    return this.#merged
  }

  /**
   * Before each request: resolves once the files' content is at most a minute old, and the credential plugin, if there
   * is one, has issued what is valid now. Files that can't be read, or not within the reader's deadline, delay nothing
   * else.
   */
  async ready(): Promise<void> {
    if (this.#now() - this.#readAt >= FRESH) await this.renew()
    else await this.#renewing
    await this.#plugin?.ready(this.#credentials.ca)
  }

  /** The API server rejected the credentials: true when there are others now. Errors: STORE_DENIED of the plugin. */
  async replaceRejected(): Promise<boolean> {
    if (this.#plugin === undefined) return this.renew()
    const rejected = this.#plugin.issued
    await this.#plugin.renew(rejected, this.#credentials.ca)
    return this.#plugin.issued !== rejected
  }

  /**
   * Reads the files now, because the API server rejected their content; true when it has changed. Unreadable files keep
   * the last content.
   */
  renew(): Promise<boolean> {
    this.#renewing ??= this.#readAgain().finally(() => {
      this.#renewing = undefined
    })
    return this.#renewing
  }

  async #readAgain(): Promise<boolean> {
    this.#readAt = this.#now()
    // Undefined while the volume is being replaced; the next attempt reads it again.
    const read = await readAll(this.target, this.#files).catch(() => undefined)
    if (read === undefined) return false
    const names = ['ca', 'cert', 'key', 'token'] as const
    if (names.every((name) => read[name] === this.#credentials[name])) return false
    this.#credentials = read
    this.#issued = undefined
    return true
  }
}

async function readAll({ ca, cert, key, token, from }: KubeTarget, files: FileReader): Promise<Credentials> {
  const read = async (secret: Secret | undefined): Promise<string | undefined> => {
    if (secret === undefined) return undefined
    return 'text' in secret ? secret.text : await readText(files, secret.file, from)
  }
  const values = {
    ca: await read(ca),
    cert: await read(cert),
    key: await read(key),
    token: (await read(token))?.trim()
  }
  return Object.fromEntries(Object.entries(values).filter(([, text]) => text !== undefined && text !== ''))
}

async function readText(files: FileReader, path: string, from: string): Promise<string> {
  try {
    return await files.text(path, LARGE_FILE)
  } catch (cause) {
    throw new WeftError(
      'OPTION_INVALID',
      `${path} (${from}) cannot be read: ${reasonOf(cause)}`,
      "correct the path or the file's mode; in a pod, see that the service account's token is mounted",
      { cause }
    )
  }
}
