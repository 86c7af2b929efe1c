// The reasons of events: conditions' codes in the spelling that kubectl's users know.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CONDITIONS } from '../../../daemon/health.ts'
import { reasonOfCode } from '../../../daemon/lease/kube-events.ts'

test('POD_CIDR_MISSING is PodCidrMissing, and every code makes a reason of its own', () => {
  assert.equal(reasonOfCode('POD_CIDR_MISSING'), 'PodCidrMissing')
  const reasons = Object.keys(CONDITIONS).map(reasonOfCode)
  for (const reason of reasons) assert.match(reason, /^([A-Z][a-z]+)+$/)
  assert.equal(new Set(reasons).size, reasons.length)
})
