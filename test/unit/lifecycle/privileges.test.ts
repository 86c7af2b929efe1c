// A weftd without its privileges says which, in one sentence, and nothing else is taken for that.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withPrivileges } from '../../../daemon/lifecycle/privileges.ts'
import { CallFailed } from '../../../daemon/os/libc.ts'

const EPERM = 1
const EINVAL = 22

test('a call that is not permitted is NOT_PRIVILEGED with the call and a cure', async () => {
  await assert.rejects(
    withPrivileges(() => Promise.reject(new CallFailed('setsockopt SO_SNDBUFFORCE', EPERM))),
    {
      code: 'NOT_PRIVILEGED',
      message: /^setsockopt SO_SNDBUFFORCE is not permitted: weftd lacks CAP_NET_ADMIN/,
      cure: /root/
    }
  )
})

test('any other failure stays what it is', async () => {
  const failure = new CallFailed('bind', EINVAL)
  await assert.rejects(
    withPrivileges(() => Promise.reject(failure)),
    (error) => error === failure
  )
  assert.equal(await withPrivileges(async () => 7), 7)
})
