// Checksum offload of devices: names that are no device's are refused before the kernel cuts them off.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readOffload } from '../../../daemon/kernel/offload.ts'
import { offloadsChecksums, setChecksumOffload } from '../../../daemon/os/checksum-offload.ts'

test('loopback offloads its checksums', async () => {
  assert.equal(await offloadsChecksums('lo'), true)
  assert.deepEqual(await readOffload('lo'), { kind: 'offload', device: 'lo', transmitChecksum: true })
})

test('a name that is too long or none has no device, as has one that the kernel does not know', async () => {
  for (const name of ['', 'none-of-this', 'sixteen-letters-', 'ü'.repeat(8)]) {
    await assert.rejects(offloadsChecksums(name), { errnoName: 'ENODEV' }, name)
    await assert.rejects(setChecksumOffload(name, false), { errnoName: /ENODEV|EPERM/ }, name)
    assert.equal(await readOffload(name), undefined)
  }
})
