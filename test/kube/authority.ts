// The certificates of a test cluster, made by openssl: one authority for the API server, etcd and everybody who calls
// them, and the key pair that signs service accounts' tokens.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../lab/run.ts'

/** Paths of PEM files. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

export interface Subject {
  readonly user: string
  /** Kubernetes takes the organisation of a client certificate for the user's groups. */
  readonly groups?: readonly string[]
  /** What a server is called: `IP:10.96.0.1`, `DNS:kubernetes`. A client's certificate has none. */
  readonly names?: readonly string[]
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']

export class Authority {
  readonly directory: string

  private constructor(directory: string) {
    this.directory = directory
  }

  static async make(directory: string): Promise<Authority> {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const authority = new Authority(directory)
    const { cert, key } = authority.#paths('ca')
    const usage = ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign']
    await run('openssl', ['req', '-x509', ...newKey, '-subj', '/CN=kubernetes', ...usage, '-keyout', key, '-out', cert])
    const { serviceAccountKey: sa } = authority
    await run('openssl', ['genrsa', '-out', sa, '2048'])
    await run('openssl', ['rsa', '-in', sa, '-pubout', '-out', authority.serviceAccountPublicKey])
    return authority
  }

  get ca(): string {
    return this.#paths('ca').cert
  }

  get caKey(): string {
    return this.#paths('ca').key
  }

  get serviceAccountKey(): string {
    return join(this.directory, 'sa.key')
  }

  get serviceAccountPublicKey(): string {
    return join(this.directory, 'sa.pub')
  }

  /** A key and a certificate in files of this name. Servers may call others with theirs: etcd's gateway does. */
  async issue(name: string, { user, groups = [], names = [] }: Subject): Promise<KeyPair> {
    const { cert, key } = this.#paths(name)
    const subject = `${groups.map((group) => `/O=${group}`).join('')}/CN=${user}`
    const usages = names.length > 0 ? 'serverAuth,clientAuth' : 'clientAuth'
    const more = names.length > 0 ? ['-addext', `subjectAltName=${names.join(',')}`] : []
    await run('openssl', [
      ...['req', '-x509', ...newKey, '-CA', this.ca, '-CAkey', this.caKey, '-subj', subject],
      ...['-addext', 'basicConstraints=critical,CA:FALSE', '-addext', `extendedKeyUsage=${usages}`, ...more],
      ...['-keyout', key, '-out', cert]
    ])
    return { cert, key }
  }

  /** A kubeconfig with a client certificate of its own; the path of the file. */
  async kubeconfig(name: string, server: string, subject: Subject): Promise<string> {
    const { cert, key } = await this.issue(name, subject)
    const base64 = (path: string) => readFileSync(path).toString('base64')
    const path = join(this.directory, `${name}.conf`)
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'lab', cluster: { server, 'certificate-authority-data': base64(this.ca) } }],
      users: [{ name, user: { 'client-certificate-data': base64(cert), 'client-key-data': base64(key) } }],
      contexts: [{ name: 'lab', context: { cluster: 'lab', user: name } }],
      'current-context': 'lab'
    }
    writeFileSync(path, JSON.stringify(config), { mode: 0o600 })
    return path
  }

  #paths(name: string): KeyPair {
    return { cert: join(this.directory, `${name}.crt`), key: join(this.directory, `${name}.key`) }
  }
}
