// A certificate authority with one server and one client certificate, made by openssl for tests of TLS.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './run.ts'

/** Paths of PEM files. */
export interface Certificates {
  readonly ca: string
  readonly cert: string
  readonly key: string
  readonly serverCert: string
  readonly serverKey: string
}

/** Makes them in `directory`; the server's is valid for these IP addresses. */
export async function makeCertificates(directory: string, addresses: readonly string[]): Promise<Certificates> {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const file = (name: string) => join(directory, name)
  const newKey = ['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  await run('openssl', [
    ...newKey,
    '-x509',
    '-days',
    '2',
    '-subj',
    '/CN=lab CA',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca.crt')
  ])
  const names = addresses.map((address) => `IP:${address}`).join(',')
  for (const [name, usage] of [
    ['server', 'serverAuth'],
    ['client', 'clientAuth']
  ] as const) {
    await run('openssl', [
      ...newKey,
      '-subj',
      `/CN=${name}`,
      '-keyout',
      file(`${name}.key`),
      '-out',
      file(`${name}.csr`)
    ])
    // etcd's gateway calls its own client port with the server's certificate: that one serves both uses.
    const usages = name === 'server' ? 'serverAuth,clientAuth' : usage
    writeFileSync(file(`${name}.ext`), `extendedKeyUsage=${usages}\nsubjectAltName=${names}\n`)
    await signCertificate(directory, name, 2)
  }
  return {
    ca: file('ca.crt'),
    cert: file('client.crt'),
    key: file('client.key'),
    serverCert: file('server.crt'),
    serverKey: file('server.key')
  }
}

/** Signs the request of `server` or `client` again: valid for so many days from now; below 0 it has expired. */
export async function signCertificate(directory: string, name: 'server' | 'client', days: number): Promise<void> {
  const file = (ending: string) => join(directory, ending)
  const by = ['-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial', '-extfile', file(`${name}.ext`)]
  const what = ['x509', '-req', '-days', String(days), '-in', file(`${name}.csr`), '-out', file(`${name}.crt`)]
  await run('openssl', [...what, ...by])
}
