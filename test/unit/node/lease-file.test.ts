// The lease file for the next weftd: readable by root only, and ignored when older than a lease can be.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { leaseKey, parseLease } from '../../../daemon/lease/lease.ts'
import { LeaseFile } from '../../../daemon/node/lease-file.ts'
import { silent } from '../logs.ts'

const remembered = {
  text: '{"Network":"10.2.0.0/16"}',
  lease: parseLease('10.2.5.0-24', '{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1}}')
}
let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-files-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('a lease is read back as it was written, by root only, for a day after it was last ours', () => {
  const file = new LeaseFile(join(folder, 'state', 'lease.json'), silent)
  assert.equal(file.read(), undefined)
  file.write(remembered)
  assert.deepEqual(file.read(), remembered)
  assert.equal(statSync(file.path).mode & 0o777, 0o600)
  const [now, day] = [Date.now(), 24 * 3_600_000]
  assert.equal(file.read(now + day + 60_000), undefined)
  assert.deepEqual(file.lastConfiguration(), { text: remembered.text, path: file.path })
  file.mark(now + 3_600_000)
  assert.equal(leaseKey(file.read(now + day + 60_000)?.lease ?? assert.fail('forgotten')), '10.2.5.0-24')
})

test('an invalid file is ignored with a warning', () => {
  const warnings: string[] = []
  const path = join(folder, 'lease.json')
  const file = new LeaseFile(path, { ...silent, warn: (_, message) => warnings.push(message) })
  for (const text of ['', '{', '{}', '[]', 'null', '{"configuration":"{}","key":"x","value":"{}"}']) {
    writeFileSync(path, text)
    assert.equal(file.read(), undefined, text)
    if (!text.includes('configuration')) assert.equal(file.lastConfiguration(), undefined, text)
  }
  assert.equal(warnings.length, 6)
})
