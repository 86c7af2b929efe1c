// Credential plugins of a kubeconfig (users[].user.exec, client.authentication.k8s.io): runs the command, reads the
// ExecCredential that it prints, and keeps it until it expires or the API server rejects it.
import { execFile } from 'node:child_process'
import { isAbsolute, join } from 'node:path'
import { WeftError } from '../base/error.ts'
import type { JsonObject } from '../config/json.ts'
import type { CredentialPlugin } from './config.ts'
import { parseObject, shorten } from './response-body.ts'

/** What the plugin printed. */
export type Issued = { readonly token?: string; readonly cert?: string; readonly key?: string }

/** Milliseconds that a plugin may take, less than a request to the API server may. */
const DEADLINE = 20_000
/** Bytes that it may print. */
const LARGEST = 1 << 20

export type PluginDeps = {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Milliseconds since 1970: expirations are points in time. */
  readonly date?: () => number
}

export class PluginCredentials {
  readonly #plugin: CredentialPlugin
  readonly #deps: PluginDeps
  #issued: Issued | undefined
  #expires = Number.POSITIVE_INFINITY
  #running: Promise<Issued> | undefined

  constructor(plugin: CredentialPlugin, deps: PluginDeps) {
    this.#plugin = plugin
    this.#deps = deps
  }

  /** The credentials last printed, also when they have expired. */
  get issued(): Issued | undefined {
    return this.#issued
  }

  /**
   * Runs the plugin unless what it printed is still valid; once for all that wait. `ca` is for plugins that ask for the
   * cluster. Errors: STORE_DENIED.
   */
  async ready(ca: string | undefined): Promise<void> {
    const { date = Date.now } = this.#deps
    if (this.#issued === undefined || date() >= this.#expires) await this.#runOnce(ca)
  }

  /** Runs the plugin again, because the API server rejected `rejected`. Errors: STORE_DENIED. */
  async renew(rejected: Issued | undefined, ca: string | undefined): Promise<void> {
    if (rejected === this.#issued) await this.#runOnce(ca)
  }

  async #runOnce(ca: string | undefined): Promise<void> {
    this.#running ??= this.#run(ca).finally(() => {
      this.#running = undefined
    })
    this.#issued = await this.#running
  }

  async #run(ca: string | undefined): Promise<Issued> {
    const { apiVersion, from } = this.#plugin
    const printed = parseObject(await printedBy(this.#plugin, this.#environment(ca)))
    const refuse = (what: string) =>
      denied(this.#plugin, what, `run it by hand and compare what it prints with ${apiVersion} (${from})`)
    if (printed?.kind !== 'ExecCredential' || printed.apiVersion !== apiVersion)
      throw refuse(`printed no ExecCredential of ${apiVersion}`)
    const status = (printed.status ?? {}) as JsonObject
    const text = (name: string) => (typeof status[name] === 'string' && status[name] !== '' ? status[name] : undefined)
    const [token, cert, key] = [text('token'), text('clientCertificateData'), text('clientKeyData')]
    if ((cert === undefined) !== (key === undefined)) throw refuse('printed a certificate or a key, but not both')
    if (token === undefined && cert === undefined) throw refuse('printed neither a token nor a certificate')
    const expires = Date.parse(text('expirationTimestamp') ?? '')
    this.#expires = Number.isNaN(expires) ? Number.POSITIVE_INFINITY : expires
    return { ...(token && { token }), ...(cert && { cert }), ...(key && { key }) }
  }

  #environment(ca: string | undefined): Record<string, string | undefined> {
    const { apiVersion, env, cluster } = this.#plugin
    const authority = ca === undefined ? {} : { 'certificate-authority-data': btoa(ca) }
    const spec = { interactive: false, ...(cluster && { cluster: { ...cluster, ...authority } }) }
    const own = Object.entries(this.#deps.environment).filter(([name]) => name !== 'NOTIFY_SOCKET')
    const info = JSON.stringify({ apiVersion, kind: 'ExecCredential', spec })
    return Object.fromEntries([...own, ...env, ['KUBERNETES_EXEC_INFO', info]])
  }
}

/** Standard output of the plugin. Its message on standard error becomes part of the error. */
function printedBy(plugin: CredentialPlugin, env: Record<string, string | undefined>): Promise<string> {
  const { command, args, folder, installHint } = plugin
  // As client-go: with a slash it is relative to the kubeconfig, else it is looked up in PATH.
  const path = command.includes('/') && !isAbsolute(command) ? join(folder, command) : command
  const options = { env, timeout: DEADLINE, killSignal: 'SIGKILL', maxBuffer: LARGEST, encoding: 'utf8' } as const
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout)
      const { code, killed } = error
      if (code === 'ENOENT')
        return reject(denied(plugin, 'does not exist', installHint ?? `install it, or correct ${plugin.from}`))
      const how = killed ? `did not end within ${DEADLINE / 1000} s` : `failed (${code ?? error.signal})`
      const why = shorten(stderr.trim().split('\n').at(-1) ?? '')
      reject(
        denied(plugin, why === '' ? how : `${how}: ${JSON.stringify(why)}`, 'correct it, or run it by hand to see why')
      )
    })
    child.stdin?.end()
  })
}

const denied = ({ command, from }: CredentialPlugin, what: string, cure: string): WeftError =>
  new WeftError('STORE_DENIED', `the credential plugin ${command} of ${from} ${what}`, cure)
