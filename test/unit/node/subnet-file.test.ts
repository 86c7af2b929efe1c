// subnet.env on disk: replaced atomically, retried, and removed only by whoever wrote it.
import assert from 'node:assert/strict'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { removeSubnetFile, SubnetFile } from '../../../daemon/node/subnet-file.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { until } from '../../lab/run.ts'

const { signal } = new AbortController()
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const env = { network: { 4: prefix('10.2.0.0/16') }, subnet: { 4: prefix('10.2.5.0/24') }, mtu: 1450, ipMasq: true }
let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-files-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('subnet.env is replaced, never written into: who has the old one open reads it to its end', () => {
  const path = join(folder, 'flannel', 'subnet.env')
  const file = new SubnetFile({ path, stateDir: folder, health: new Health(Date.now, () => undefined), signal })
  file.write(env)
  const before = readFileSync(path, 'utf8')
  const open = openSync(path, 'r')
  try {
    file.write({ ...env, mtu: 1400 })
    assert.equal(readFileSync(open, 'utf8'), before)
  } finally {
    closeSync(open)
  }
  assert.match(readFileSync(path, 'utf8'), /FLANNEL_MTU=1400/)
  assert.equal(statSync(path).mode & 0o777, 0o644)
})

test('a subnet.env that cannot be written raises a condition that blocks nothing, and is written later', async () => {
  const health = new Health(Date.now, () => undefined)
  health.clear('STARTING')
  const path = join(folder, 'flannel', 'subnet.env')
  writeFileSync(join(folder, 'flannel'), 'in the way')
  const file = new SubnetFile({ path, stateDir: join(folder, 'state'), health, signal })
  file.write(env)
  assert.match(health.active()[0]?.detail ?? '', new RegExp(`^${path}: .*(ENOTDIR|EEXIST)`))
  assert.equal(health.blocking('add'), undefined)
  file.write({ ...env, mtu: 1399 })
  rmSync(join(folder, 'flannel'))
  mkdirSync(join(folder, 'flannel'))
  await until(() => health.active().length === 0, { what: 'the end of the condition' })
  assert.match(readFileSync(path, 'utf8'), /FLANNEL_MTU=1399/)
})

test('subnet.env is removed with weftd if weftd wrote it, and kept if another program has written it since', () => {
  const path = join(folder, 'subnet.env')
  const file = new SubnetFile({ path, stateDir: folder, health: new Health(Date.now, () => undefined), signal })
  file.write(env)
  assert.equal(removeSubnetFile(path, folder), true)
  assert.deepEqual(readdirSync(folder), [])
  assert.equal(removeSubnetFile(path, folder), true, 'there is none')
  file.write(env)
  // As flanneld does: another file in its place, with the very same text.
  const other = join(folder, 'other')
  writeFileSync(other, readFileSync(path, 'utf8'))
  renameSync(other, path)
  assert.equal(removeSubnetFile(path, folder), false)
  assert.deepEqual(readdirSync(folder), ['subnet.env'])
  assert.equal(removeSubnetFile(path, folder), false, 'nothing is known of who wrote it')
})
