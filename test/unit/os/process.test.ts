// Looking up processes by pid or thread id, and a lock's holder: against this process and one that it starts.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Senders } from '../../../daemon/kernel/notification-sender.ts'
import { flock, lockHolder } from '../../../daemon/os/flock.ts'
import { processOf } from '../../../daemon/os/process.ts'

const directory = mkdtempSync(join(tmpdir(), 'weft-process-'))
after(() => rmSync(directory, { recursive: true }))
const named = readFileSync('/proc/self/comm', 'utf8').trim()

/** A Node of its own, with the threads that it always has, and the id of one of them. */
async function neighbour() {
  const child = spawn(process.execPath, ['-e', 'console.log(1);setInterval(() => {}, 1000)'], { stdio: 'pipe' })
  await once(child.stdout, 'data')
  const pid = child.pid ?? assert.fail()
  const thread =
    readdirSync(`/proc/${pid}/task`)
      .map(Number)
      .find((id) => id !== pid) ?? assert.fail('no thread')
  return {
    pid,
    thread,
    name: readFileSync(`/proc/${pid}/comm`, 'utf8').trim(),
    [Symbol.dispose]: () => child.kill('SIGKILL')
  }
}

test('a process is found by its id and by those of its threads, under its own name', async () => {
  using other = await neighbour()
  const wanted = { pid: other.pid, name: other.name, uid: process.geteuid?.() }
  assert.deepEqual(processOf(other.pid), wanted)
  assert.deepEqual(processOf(other.thread), wanted)
  // Beyond the largest that Linux gives out (PID_MAX_LIMIT).
  assert.equal(processOf(2 ** 22 + 1), undefined)
})

test('the sender is the process, whichever thread sent the message, and never weftd for a thread id that only equals one of ours', async () => {
  using other = await neighbour()
  const senders = new Senders()
  const wanted = { self: false, pid: other.pid, name: other.name }
  assert.deepEqual(
    [other.pid, other.thread].map((port) => senders.of(port, 0)),
    [wanted, wanted]
  )
  const own =
    readdirSync('/proc/self/task')
      .map(Number)
      .find((id) => id !== process.pid) ?? assert.fail('no thread')
  assert.equal(senders.of(own, 0), undefined)
  assert.deepEqual(senders.of(process.pid, 0), { self: true, pid: process.pid, name: 'weftd' })
})

test('a lock names its holder while it is held, also one on a network namespace', async () => {
  for (const path of [join(directory, 'lock'), '/proc/self/ns/net']) {
    const lock = await flock(path, 0)
    assert.deepEqual(lockHolder(path), { pid: process.pid, name: named, uid: process.geteuid?.() })
    await assert.rejects(flock(path, 0), { code: 'LOCK_HELD' })
    lock[Symbol.dispose]()
    assert.equal(lockHolder(path), undefined)
  }
})
