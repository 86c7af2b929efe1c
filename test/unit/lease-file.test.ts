// The lease remembered for the next weftd, and subnet.env: whole or not at all, for the right eyes, and no older than a lease can be.
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
import { Health } from '../../daemon/health.ts'
import { leaseKey, parseLease } from '../../daemon/lease/lease.ts'
import { LeaseFile } from '../../daemon/lease-file.ts'
import { removeSubnetFile, SubnetFile } from '../../daemon/subnet-file.ts'
import { parsePrefix } from '../../ipam/address.ts'

const { signal } = new AbortController()
const silent = { error() {}, warn() {}, info() {}, debug() {} }
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const env = { network: { 4: prefix('10.2.0.0/16') }, subnet: { 4: prefix('10.2.5.0/24') }, mtu: 1450, ipMasq: true }
const remembered = {
  text: '{"Network":"10.2.0.0/16"}',
  lease: parseLease('10.2.5.0-24', '{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1}}')
}
let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-files-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const until = async (condition: () => boolean, what: string) => {
  for (const deadline = performance.now() + 10_000; !condition(); ) {
    assert.ok(performance.now() < deadline, `waited 10 s for: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

test('a lease is read back as it was written, by root only, for a day after it was last ours', () => {
  const file = new LeaseFile(join(folder, 'state', 'lease.json'), silent)
  assert.equal(file.read(), undefined)
  file.write(remembered)
  assert.deepEqual(file.read(), remembered)
  assert.equal(statSync(file.path).mode & 0o777, 0o600)
  const [now, day] = [Date.now(), 24 * 3_600_000]
  assert.equal(file.read(now + day + 60_000), undefined)
  file.mark(now + 3_600_000)
  assert.equal(leaseKey(file.read(now + day + 60_000)?.lease ?? assert.fail('forgotten')), '10.2.5.0-24')
})

test('what is no remembered lease is none, with a warning', () => {
  const told: string[] = []
  const path = join(folder, 'lease.json')
  const file = new LeaseFile(path, { ...silent, warn: (_, message) => told.push(message) })
  for (const text of ['', '{', '{}', '[]', 'null', '{"configuration":"{}","key":"x","value":"{}"}']) {
    writeFileSync(path, text)
    assert.equal(file.read(), undefined, text)
  }
  assert.equal(told.length, 6)
})

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

test('a subnet.env that can not be written is a condition that blocks nothing, and is written once it can be', async () => {
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
  await until(() => health.active().length === 0, 'the end of the condition')
  assert.match(readFileSync(path, 'utf8'), /FLANNEL_MTU=1399/)
})

test('subnet.env goes with weftd when it is the one that weftd wrote, and stays where somebody has written it since', () => {
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
