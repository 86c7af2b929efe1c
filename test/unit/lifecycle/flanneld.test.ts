// A flanneld in our network namespace is reported with its pid, for as long as it runs; others are not.
import assert from 'node:assert/strict'
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Health } from '../../../daemon/health/health.ts'
import { reportFlanneld } from '../../../daemon/lifecycle/flanneld.ts'
import { until } from '../../lab/run.ts'

test('a flanneld beside us is a condition with its pid until it ends', async (t) => {
  const proc = mkdtempSync(join(tmpdir(), 'weft-proc-'))
  t.after(() => rmSync(proc, { recursive: true }))
  const namespaces = new Map<string, string>()
  const process = (pid: string, comm: string, namespace: string) => {
    mkdirSync(join(proc, pid, 'ns'), { recursive: true })
    writeFileSync(join(proc, pid, 'comm'), `${comm}\n`)
    const known = namespaces.get(namespace)
    if (known === undefined) {
      namespaces.set(namespace, join(proc, pid, 'ns/net'))
      writeFileSync(join(proc, pid, 'ns/net'), '')
    } else linkSync(known, join(proc, pid, 'ns/net'))
  }
  process('self', 'weftd', 'ours')
  process('17', 'flanneld', 'ours')
  process('18', 'flanneld', "a lab's")
  process('19', 'flanneld-next', 'ours')
  const health = new Health(Date.now, () => undefined)
  const condition = () => health.active().find(({ code }) => code === 'FLANNELD_RUNNING')
  const ended = reportFlanneld(health, AbortSignal.timeout(30_000), { proc, againMs: 5 })
  assert.equal(condition()?.detail, 'pid 17')
  assert.match(condition()?.cure ?? '', /^stop flanneld \(pid 17\)/)
  rmSync(join(proc, '17'), { recursive: true })
  await until(() => condition() === undefined, { what: 'the end of the condition' })
  await ended
})
