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
    const by = ['-CA', file('ca.crt'), '-CAkey', file('ca.key'), '-CAcreateserial']
    await run('openssl', [
      'x509',
      '-req',
      '-days',
      '2',
      '-in',
      file(`${name}.csr`),
      ...by,
      '-extfile',
      file(`${name}.ext`),
      '-out',
      file(`${name}.crt`)
    ])
  }
  return {
    ca: file('ca.crt'),
    cert: file('client.crt'),
    key: file('client.key'),
    serverCert: file('server.crt'),
    serverKey: file('server.key')
  }
}
