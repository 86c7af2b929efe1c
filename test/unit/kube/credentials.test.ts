// Credentials in files that others renew: read again in time, kept while they can't be read, and never part of an
// error.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { KubeAccess, targetOf } from '../../../daemon/kube/credentials.ts'
import { FileReader } from '../../../ipam/read-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'weft-access-'))
after(() => rmSync(folder, { recursive: true }))
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}
const target = (token: string) => ({
  server: 'https://192.0.2.1',
  from: 'a test',
  ca: { text: 'CA' },
  token: { file: token },
  insecure: false
})

test('a token is read again after a minute, or at once when it was refused', async () => {
  let now = 0
  const path = file('token', 'one\n')
  const access = await KubeAccess.open(target(path), () => now)
  const first = access.credentials
  assert.deepEqual(first, { ca: 'CA', token: 'one' })
  file('token', 'two\n')
  assert.equal(access.credentials, first)
  await access.ready()
  assert.equal(access.credentials, first)
  now = 60_000
  await access.ready()
  assert.equal(access.credentials.token, 'two')
  file('token', 'three')
  assert.equal(await access.renew(), true)
  assert.equal(access.credentials.token, 'three')
  assert.equal(await access.renew(), false)
})

test('what was read last counts while a file is being replaced, but there must be one at the start', async () => {
  const path = file('gone', 'one')
  const access = await KubeAccess.open(target(path), () => 0)
  rmSync(path)
  assert.equal(await access.renew(), false)
  assert.equal(access.credentials.token, 'one')
  await assert.rejects(
    KubeAccess.open(target(path), () => 0),
    {
      code: 'OPTION_INVALID',
      message: /gone \(a test\) cannot be read: ENOENT/
    }
  )
})

test('requests go on with the last credentials while the files of the token do not answer', async () => {
  let now = 0
  class Hung extends FileReader {
    isHung = false
    override within<T>(path: string, work: () => Promise<T>): Promise<T> {
      // Patience is for the hung file alone: on a busy machine a real one takes longer.
      return this.isHung ? super.within(path, () => new Promise<T>(() => {})) : work()
    }
  }
  const files = new Hung(20)
  const access = await KubeAccess.open(target(file('hung', 'one')), () => now, { environment: {} }, files)
  files.isHung = true
  now = 60_000
  await Promise.all([access.ready(), access.ready()])
  assert.equal(access.credentials.token, 'one')
})

test('a kubeconfig may be YAML or JSON, and one that is neither is reported by its line and not by what stands there', async () => {
  const yaml = `current-context: x
contexts: [{name: x, context: {cluster: c}}]
clusters: [{name: c, cluster: {server: "https://192.0.2.1:6443"}}]
`
  const target = await targetOf({ kubeconfigFile: file('yaml', yaml), environment: {} })
  assert.equal(target.server, 'https://192.0.2.1:6443')
  const json = { 'current-context': 'x', contexts: [{ name: 'x', context: { cluster: 'c' } }] }
  const clusters = [{ name: 'c', cluster: { server: 'http://127.0.0.1:8080' } }]
  const same = await targetOf({ kubeconfigFile: file('json', JSON.stringify({ ...json, clusters })), environment: {} })
  assert.equal(same.server, 'http://127.0.0.1:8080')
  const broken = targetOf({ kubeconfigFile: file('bad', 'users:\n  - token: "SECRET\n  x: {'), environment: {} })
  await assert.rejects(broken, (error: Error) => {
    assert.match(error.message, /bad is not YAML \(line \d+\)/)
    assert.doesNotMatch(error.message, /SECRET/)
    return true
  })
  await assert.rejects(targetOf({ kubeconfigFile: join(folder, 'none'), environment: {} }), {
    message: /none \(--kubeconfig-file\) cannot be read/
  })
})
