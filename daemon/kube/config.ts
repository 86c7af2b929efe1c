// Selects the API server and the credentials: from a kubeconfig, this pod's service account, or a URL alone. Credential
// files are read by credentials.ts.
import { isLoopback, parseIp } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'

/** A credential inline, or the file that contains it, which may be replaced at any time. */
export type Secret = { readonly text: string } | { readonly file: string }

/** A program that prints credentials (`exec` of a user, client.authentication.k8s.io). */
export type CredentialPlugin = {
  readonly apiVersion: string
  readonly command: string
  readonly args: readonly string[]
  readonly env: readonly (readonly [name: string, value: string])[]
  /** With `provideClusterInfo`: what the plugin gets, without the authority. */
  readonly cluster?: JsonObject
  readonly installHint?: string
  /** Folder of the kubeconfig. */
  readonly folder: string
  /** The kubeconfig, for messages. */
  readonly from: string
}

export type KubeTarget = {
  /** http: or https:, no slash at the end. */
  readonly server: string
  /** Where the server was configured, for messages. */
  readonly from: string
  readonly ca?: Secret
  readonly cert?: Secret
  readonly key?: Secret
  readonly token?: Secret
  /** Prints token or certificate. */
  readonly plugin?: CredentialPlugin
  /** The name in the server's certificate, if it differs from the URL's. */
  readonly serverName?: string
  readonly insecure: boolean
}

/** The mount of a pod's service account (Kubernetes documentation, "Accessing the API from a Pod"). */
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/**
 * The service account of this pod and the address in its environment. Errors: OPTION_INVALID outside a pod without
 * --kube-api-url.
 */
export function targetOfPod(
  environment: Readonly<Record<string, string | undefined>>,
  url: string | undefined
): KubeTarget {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment
  const inPod = host !== undefined && host !== '' && port !== undefined && port !== ''
  if (!inPod && url === undefined) {
    throw new WeftError(
      'OPTION_INVALID',
      '--store kubernetes names no API server: there is no --kubeconfig-file, no --kube-api-url, and this is no pod (KUBERNETES_SERVICE_HOST is not set)',
      'give --kubeconfig-file, or run weftd as a pod with a service account'
    )
  }
  const server = trimmed(withScheme(url ?? `${host?.includes(':') ? `[${host}]` : host}:${port}`, inPod))
  const from = url === undefined ? 'the environment of this pod' : '--kube-api-url'
  // A token must not be sent unencrypted, and the plain-text port of an API server requires none.
  if (!inPod || !server.startsWith('https:')) return { server, from, insecure: false }
  return {
    server,
    from,
    ca: { file: `${SERVICE_ACCOUNT}/ca.crt` },
    token: { file: `${SERVICE_ACCOUNT}/token` },
    insecure: false
  }
}

/**
 * The current context of a kubeconfig (client-go's format, v1), parsed from YAML; `url` replaces its server. Relative
 * paths are relative to the folder of `path`. Errors: OPTION_INVALID with the path inside the file and the cure; never
 * with a secret.
 */
export function targetOfKubeconfig(config: Json, path: string, url: string | undefined): KubeTarget {
  const file = new Kubeconfig(config, path)
  const contextName = file.chosenContext()
  const context = file.named('contexts', contextName, 'context')
  const clusterName = file.text(context, 'cluster', `contexts[${contextName}]`) ?? ''
  const cluster = file.named('clusters', clusterName, 'cluster')
  const userName = file.text(context, 'user', `contexts[${contextName}]`)
  const user = userName === undefined ? {} : file.named('users', userName, 'user')
  const at = `users[${userName}]`
  for (const [name, cure] of REFUSED) {
    if (user[name] === undefined || user[name] === null) continue
    throw file.wrong(`${at} uses ${name}, which weftd does not support`, cure)
  }
  const where = `clusters[${clusterName}]`
  if (file.text(cluster, 'proxy-url', where) !== undefined) {
    throw file.wrong(`${where} has a proxy-url, which weftd does not support`, 'reach the API server without a proxy')
  }
  const ca = file.secret(cluster, 'certificate-authority', where)
  const insecure = cluster['insecure-skip-tls-verify'] === true
  const token = file.token(user, at)
  const { cert, key } = file.pair(user, at)
  const server = file.url(url ?? cluster.server, where, ca !== undefined || cert !== undefined || insecure)
  // As in client-go: a plugin is asked only where there is nothing else.
  const isPlain = token === undefined && cert === undefined
  const plugin = isPlain ? file.plugin(user, at, { ...cluster, server }) : undefined
  if (token !== undefined || plugin !== undefined)
    file.refuseOpen(server, url === undefined ? `${where}.server` : '--kube-api-url', at)
  const serverName = file.text(cluster, 'tls-server-name', where)
  return {
    server: trimmed(server),
    from: url === undefined ? path : '--kube-api-url',
    ...defined({ ca, cert, key, token }),
    ...(plugin !== undefined && { plugin }),
    ...(serverName !== undefined && { serverName }),
    insecure
  }
}

/** http: to another host. */
function isOpen(server: string): boolean {
  const { protocol, hostname } = new URL(server)
  const ip = parseIp(hostname.replace(/^\[(.*)\]$/, '$1'))
  return protocol === 'http:' && hostname !== 'localhost' && (ip === undefined || !isLoopback(ip))
}

const PLAIN = 'use a kubeconfig with a client certificate, a token or a tokenFile, such as that of a service account'
const REFUSED: readonly (readonly [name: string, cure: string])[] = [
  ['auth-provider', `Kubernetes has removed authentication providers: ${PLAIN}`],
  ['username', `Kubernetes has removed passwords: ${PLAIN}`],
  ['password', `Kubernetes has removed passwords: ${PLAIN}`],
  ['as', `weftd does not impersonate other users: ${PLAIN}`]
]

const PLUGIN_VERSIONS: readonly unknown[] = ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1']
/** What a plugin that asks for the cluster gets of it (client-go's ExecCluster). */
const CLUSTER_KEYS = ['server', 'tls-server-name', 'insecure-skip-tls-verify'] as const
const CLUSTER_CONFIG = 'client.authentication.k8s.io/exec'

/** client-go takes HOST:PORT, too, with TLS where something of TLS is configured. */
const withScheme = (server: string, isSecure: boolean): string =>
  /^([^\s,/:[\]]+|\[[\da-f:.]+\]):\d+\/*$/i.test(server) ? `${isSecure ? 'https' : 'http'}://${server}` : server

const trimmed = (url: string): string => url.replace(/\/+$/, '')

/** client-go's ExecCluster; `config` is from the extension that is reserved for it. */
function clusterFor(cluster: JsonObject): JsonObject {
  const extensions = Array.isArray(cluster.extensions) ? (cluster.extensions as readonly JsonObject[]) : []
  const config = extensions.find((entry) => entry?.name === CLUSTER_CONFIG)?.extension
  const known = CLUSTER_KEYS.flatMap((key) => (cluster[key] === undefined ? [] : [[key, cluster[key]] as const]))
  return { ...Object.fromEntries(known), ...(config !== undefined && { config }) }
}

const defined = (
  secrets: {
    readonly [Name in 'ca' | 'cert' | 'key' | 'token']: Secret | undefined
  }
): Pick<KubeTarget, 'ca' | 'cert' | 'key' | 'token'> =>
  Object.fromEntries(Object.entries(secrets).filter(([, secret]) => secret !== undefined))

class Kubeconfig {
  readonly root: JsonObject
  readonly #path: string

  constructor(config: Json, path: string) {
    this.#path = path
    this.root = this.#object(config, 'the whole file')
  }

  wrong(what: string, cure: string): WeftError {
    return new WeftError('OPTION_INVALID', `--kubeconfig-file ${this.#path}: ${what}`, cure)
  }

  #object(value: Json | undefined, where: string): JsonObject {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
    throw this.wrong(`${where} is not a mapping`, 'compare it with the output of "kubectl config view --raw"')
  }

  /** A non-empty string; `undefined` when absent, empty or null. */
  text(object: JsonObject, name: string, where: string): string | undefined {
    const value = object[name]
    if (value === undefined || value === null || value === '') return undefined
    if (typeof value === 'string') return value
    throw this.wrong(`${where === '' ? '' : `${where}.`}${name} is not a string`, 'put it in quotes')
  }

  chosenContext(): string {
    const name = this.text(this.root, 'current-context', '')
    if (name !== undefined) return name
    const what = `current-context is ${this.root['current-context'] === '' ? 'empty' : 'missing'}`
    throw this.wrong(what, 'choose one with "kubectl config use-context NAME"')
  }

  /** The object `inner` in the list's entry of this name. */
  named(list: string, name: string, inner: string): JsonObject {
    const entries = this.root[list]
    const found = Array.isArray(entries)
      ? entries.map((entry) => this.#object(entry, `an entry of ${list}`)).find((entry) => entry.name === name)
      : undefined
    if (found === undefined)
      throw this.wrong(
        `${list} has no entry ${JSON.stringify(name)}`,
        'correct the name, or take the kubeconfig that belongs to it'
      )
    return this.#object(found[inner] ?? {}, `${list}[${name}].${inner}`)
  }

  /** `name-data`, base64 of PEM, which takes precedence as in client-go, else the file `name`. */
  secret(object: JsonObject, name: string, where: string): Secret | undefined {
    const data = this.text(object, `${name}-data`, where)
    if (data !== undefined) return { text: this.#decoded(data, `${where}.${name}-data`) }
    const file = this.text(object, name, where)
    return file === undefined ? undefined : { file: this.#beside(file) }
  }

  /** A client certificate with its key, or neither. */
  pair(user: JsonObject, at: string): { readonly cert: Secret | undefined; readonly key: Secret | undefined } {
    const cert = this.secret(user, 'client-certificate', at)
    const key = this.secret(user, 'client-key', at)
    if ((cert === undefined) === (key === undefined)) return { cert, key }
    const [has, lacks] = cert === undefined ? ['key', 'certificate'] : ['certificate', 'key']
    throw this.wrong(`${at} has client-${has} without client-${lacks}`, 'give both')
  }

  /** In client-go a tokenFile takes precedence over a token. */
  token(user: JsonObject, where: string): Secret | undefined {
    const file = this.text(user, 'tokenFile', where)
    if (file !== undefined) return { file: this.#beside(file) }
    const text = this.text(user, 'token', where)
    return text === undefined ? undefined : { text }
  }

  /** The credential plugin under `exec`. */
  plugin(user: JsonObject, at: string, cluster: JsonObject): CredentialPlugin | undefined {
    if (user.exec === undefined || user.exec === null) return undefined
    const where = `${at}.exec`
    const exec = this.#object(user.exec, where)
    const command = this.text(exec, 'command', where)
    if (command === undefined) throw this.wrong(`${where} has no command`, 'name the credential plugin')
    const { apiVersion } = exec
    if (typeof apiVersion !== 'string' || !PLUGIN_VERSIONS.includes(apiVersion))
      throw this.wrong(
        `${where}.apiVersion is ${JSON.stringify(apiVersion ?? null)}`,
        `write one of ${PLUGIN_VERSIONS.join(', ')}`
      )
    if (exec.interactiveMode === 'Always')
      throw this.wrong(`${where}.interactiveMode is Always, but weftd has no terminal`, 'write Never')
    const installHint = this.text(exec, 'installHint', where)
    return {
      ...{ apiVersion, command, args: this.#texts(exec.args, `${where}.args`) },
      env: this.#list(exec.env, `${where}.env`).map((entry) => {
        const pair = this.#object(entry, `an entry of ${where}.env`)
        return [this.text(pair, 'name', `${where}.env`) ?? '', this.text(pair, 'value', `${where}.env`) ?? ''] as const
      }),
      ...(exec.provideClusterInfo === true && { cluster: clusterFor(cluster) }),
      ...(installHint !== undefined && { installHint }),
      folder: this.#beside('.'),
      from: `--kubeconfig-file ${this.#path}`
    }
  }

  #list(value: Json | undefined, where: string): readonly Json[] {
    if (value === undefined || value === null) return []
    if (Array.isArray(value)) return value as readonly Json[]
    throw this.wrong(`${where} is not a list`, 'compare it with the output of "kubectl config view --raw"')
  }

  #texts(value: Json | undefined, where: string): readonly string[] {
    return this.#list(value, where).map((item) => {
      if (typeof item === 'string') return item
      throw this.wrong(`${where} has ${JSON.stringify(item)}, which is not a string`, 'put it in quotes')
    })
  }

  /** An https: or http: URL; `isSecure` decides where there is no scheme. */
  url(written: Json | undefined, where: string, isSecure: boolean): string {
    const server = typeof written === 'string' ? withScheme(written, isSecure) : written
    if (typeof server === 'string' && /^https?:\/\/[^\s/]/.test(server) && URL.canParse(server)) return server
    const what = `${where} has the server ${JSON.stringify(server ?? null)}`
    throw this.wrong(what, 'write a URL that begins with https:// or http://')
  }

  /** A token must not be sent over plain HTTP. */
  refuseOpen(server: string, place: string, at: string): void {
    if (!isOpen(server)) return
    throw this.wrong(
      `${place} is ${server}, and ${at} has a token, which would be sent unencrypted`,
      'use https:// and the certificate-authority of the API server, or remove the token'
    )
  }

  #decoded(data: string, where: string): string {
    try {
      return atob(data)
    } catch {
      throw this.wrong(`${where} is not base64`, 'take the value as "kubectl config view --raw" prints it')
    }
  }

  #beside(file: string): string {
    return file.startsWith('/') ? file : `${this.#path.slice(0, this.#path.lastIndexOf('/') + 1)}${file}`
  }
}
