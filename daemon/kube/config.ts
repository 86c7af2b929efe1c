// Selects the API server and the credentials: from a kubeconfig, this pod's service account, or a URL alone. Credential
// files are read by credentials.ts.
import { isLoopback, parseIp } from '../../ipam/address.ts'
import { WeftError } from '../base/error.ts'
import type { Json, JsonObject } from '../config/json.ts'

/** A credential inline, or the file that contains it, which may be replaced at any time. */
export type Secret = { readonly text: string } | { readonly file: string }

export type KubeTarget = {
  /** http: or https:, no slash at the end. */
  readonly server: string
  /** Where the server was configured, for messages. */
  readonly from: string
  readonly ca?: Secret
  readonly cert?: Secret
  readonly key?: Secret
  readonly token?: Secret
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
  const server = trimmed(url ?? `https://${host?.includes(':') ? `[${host}]` : host}:${port}`)
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
  const server = file.url(url ?? cluster.server, where)
  const token = file.token(user, at)
  if (token !== undefined) file.refuseOpen(server, url === undefined ? `${where}.server` : '--kube-api-url', at)
  const cert = file.secret(user, 'client-certificate', at)
  const key = file.secret(user, 'client-key', at)
  if ((cert === undefined) !== (key === undefined))
    throw file.wrong(
      `${at} has client-${cert ? 'certificate' : 'key'} without client-${cert ? 'key' : 'certificate'}`,
      'give both'
    )
  const serverName = file.text(cluster, 'tls-server-name', where)
  return {
    server: trimmed(server),
    from: url === undefined ? path : '--kube-api-url',
    ...defined({ ca: file.secret(cluster, 'certificate-authority', where), cert, key, token }),
    ...(serverName !== undefined && { serverName }),
    insecure: cluster['insecure-skip-tls-verify'] === true
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
  ['exec', `weftd runs no credential plugin: ${PLAIN}`],
  ['auth-provider', `Kubernetes has removed authentication providers: ${PLAIN}`],
  ['username', `Kubernetes has removed passwords: ${PLAIN}`],
  ['password', `Kubernetes has removed passwords: ${PLAIN}`],
  ['as', `weftd does not impersonate other users: ${PLAIN}`]
]

const trimmed = (url: string): string => url.replace(/\/+$/, '')

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

  /** In client-go a tokenFile takes precedence over a token. */
  token(user: JsonObject, where: string): Secret | undefined {
    const file = this.text(user, 'tokenFile', where)
    if (file !== undefined) return { file: this.#beside(file) }
    const text = this.text(user, 'token', where)
    return text === undefined ? undefined : { text }
  }

  /** An https: or http: URL. */
  url(server: Json | undefined, where: string): string {
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
