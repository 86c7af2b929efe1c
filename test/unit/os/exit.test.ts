// The end of the process while a thread of the pool waits for something that never comes.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'

test('the process ends with its status although a thread of the pool waits', () => {
  const module = new URL('../../../daemon/os/', import.meta.url)
  // A socket on which nothing arrives, read without a limit: process.exit() would wait for it.
  const script = `
    import { exitAtOnce } from '${module}exit.ts'
    import { NETLINK_ROUTE, netlinkSocket, receive } from '${module}libc.ts'
    void receive(netlinkSocket(NETLINK_ROUTE), Buffer.alloc(8))
    setTimeout(() => exitAtOnce(7), 50)`
  const { status, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 30_000 })
  assert.deepEqual([status, signal], [7, null])
})
