// Credential plugins: run when needed, once for all that wait, again when what they issued has expired or was rejected.
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { KubeApi } from '../../../daemon/kube/api.ts'
import type { CredentialPlugin } from '../../../daemon/kube/config.ts'
import { KubeAccess } from '../../../daemon/kube/credentials.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-plugin-'))
after(() => rmSync(folder, { recursive: true }))
const V1 = 'client.authentication.k8s.io/v1'
const HOUR = 3_600_000

/** A plugin that issues token 1, 2, … and notes each run; `status` and `tail` are more of its script. */
function pluginOf(name: string, script = ''): CredentialPlugin & { readonly runs: () => readonly string[] } {
  const [path, runs] = [join(folder, name), join(folder, `${name}.runs`)]
  writeFileSync(runs, '')
  writeFileSync(
    path,
    `#!/bin/sh
echo "$KUBERNETES_EXEC_INFO $A $1 $NOTIFY_SOCKET" >> ${runs}
n=$(wc -l < ${runs})
${script}
echo '{"kind":"ExecCredential","apiVersion":"${V1}","status":{"token":"token '$n'"'$more'}}'
`,
    { mode: 0o755 }
  )
  return {
    ...{ apiVersion: V1, command: `./${name}`, args: ['first'], env: [['A', 'b']], folder, from: 'a kubeconfig' },
    runs: () => readFileSync(runs, 'utf8').split('\n').slice(0, -1)
  }
}

const accessOf = (plugin: CredentialPlugin, server = 'http://127.0.0.1:1', date = () => 0) => {
  const target = { server, from: 'a kubeconfig', ca: { text: 'CA' }, plugin, insecure: false }
  return KubeAccess.open(target, () => 0, { environment: { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: '/run/x' }, date })
}

test('a plugin runs once for all that wait, with its arguments, variables and the cluster if it asks for it', async () => {
  const plugin = pluginOf('once')
  const access = await accessOf({ ...plugin, cluster: { server: 'https://192.0.2.1' } })
  await Promise.all([access.ready(), access.ready()])
  await access.ready()
  assert.deepEqual(access.credentials, { ca: 'CA', token: 'token 1' })
  assert.equal(access.credentials, access.credentials)
  const cluster = { server: 'https://192.0.2.1', 'certificate-authority-data': btoa('CA') }
  const info = { apiVersion: V1, kind: 'ExecCredential', spec: { interactive: false, cluster } }
  assert.deepEqual(plugin.runs(), [`${JSON.stringify(info)} b first `])
})

test('it runs again when what it issued has expired', async () => {
  let now = 0
  const plugin = pluginOf('expiring', `more=',"expirationTimestamp":"1970-01-01T0'$n':00:00Z"'`)
  const access = await accessOf(plugin, undefined, () => now)
  const tokens: (string | undefined)[] = []
  for (now of [0, HOUR - 1, HOUR, 2 * HOUR]) {
    await access.ready()
    tokens.push(access.credentials.token)
  }
  assert.deepEqual(tokens, ['token 1', 'token 1', 'token 2', 'token 3'])
})

test('it runs again when the API server rejects a token, and the request succeeds with the next', async () => {
  const plugin = pluginOf('rejected')
  const server = createServer(({ headers }, response) => {
    response.statusCode = headers.authorization === 'Bearer token 2' ? 200 : 401
    response.end('{}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await using api = new KubeApi(await accessOf(plugin, url), { raise() {}, clear() {} })
  const reply = await api.call({ verb: 'GET', path: '/' }, AbortSignal.timeout(20_000))
  assert.equal(reply.status, 200)
  assert.equal(plugin.runs().length, 2)
  server.close()
})

for (const [what, name, script, message, cure] of [
  ['fails', 'failing', 'echo no such profile >&2; exit 3', /failed \(3\): "no such profile"/, /by hand/],
  ['prints something else', 'other', 'echo hello; exit', /printed no ExecCredential of/, /compare/],
  [
    'prints no token',
    'empty',
    `echo '{"kind":"ExecCredential","apiVersion":"${V1}"}'; exit`,
    /neither a token/,
    /compare/
  ]
] as const)
  test(`a plugin that ${what} is the condition STORE_DENIED with what it said`, async () => {
    const raised: string[] = []
    const report = { raise: (code: string, detail: string, cure = '') => raised.push(code, detail, cure), clear() {} }
    await using api = new KubeApi(await accessOf(pluginOf(name, script)), {
      ...report,
      raise: (...all) => void report.raise(...all)
    })
    await assert.rejects(api.call({ verb: 'GET', path: '/' }, AbortSignal.timeout(20_000)), WeftError)
    const [code, detail = '', advice = ''] = raised
    assert.equal(code, 'STORE_DENIED')
    assert.match(detail, message)
    assert.match(detail, /the credential plugin \.\/\w+ of a kubeconfig/)
    assert.match(advice, cure)
  })

test('a plugin that is not installed is answered with its hint', async () => {
  const access = await accessOf({ ...pluginOf('missing'), command: 'no-such-plugin', installHint: 'install the tools' })
  await assert.rejects(access.ready(), { code: 'STORE_DENIED', message: /does not exist/, cure: 'install the tools' })
})
