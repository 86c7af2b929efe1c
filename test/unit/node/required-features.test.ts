// Missing kernel features are reported, and found without a restart once they are there.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { WeftError } from '../../../daemon/base/error.ts'
import { Health } from '../../../daemon/health/health.ts'
import { reportMissingFeatures, untilNoneMissing } from '../../../daemon/node/required-features.ts'

const lacking = (feature: string) =>
  new WeftError('KERNEL_FEATURE_MISSING', `this kernel can't make a ${feature}`, `modprobe ${feature}`)

test('each missing feature is reported with its cure, until it is there', async () => {
  const health = new Health(Date.now, () => undefined)
  const [vxlan, bridge] = [lacking('vxlan'), lacking('bridge')]
  let questions = 0
  const deps = {
    health,
    missing: async () => (++questions <= 2 ? [vxlan, bridge] : questions === 3 ? [vxlan] : [])
  }
  assert.equal(await reportMissingFeatures(deps), false)
  const raised = health.active().find(({ code }) => code === 'KERNEL_FEATURE')
  assert.equal(raised?.detail, "this kernel can't make a vxlan; this kernel can't make a bridge")
  assert.equal(raised?.cure, 'modprobe vxlan; modprobe bridge')
  await untilNoneMissing(deps, new AbortController().signal)
  assert.equal(questions, 4)
  assert.deepEqual(
    health.active().map(({ code }) => code),
    ['STARTING']
  )
})
