// Which memory may be unmapped without losing anything.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { releaseFiles, releaseHeap, unchangedFiles } from '../../../daemon/kernel/resident.ts'

const mapping = (range: string, permissions: string, file: string, anonymous: number) =>
  `${range} ${permissions} 00000000 fe:00 4711                       ${file}\nSize:     4 kB\nRss:      4 kB\nAnonymous:     ${anonymous} kB\nVmFlags: rd mr\n`

test('only read-only mappings of files without a page of their own are unmapped', () => {
  const smaps = [
    mapping('1000-2000', 'r-xp', '/usr/bin/weftd', 0),
    mapping('2000-3000', 'r--p', '/usr/bin/weftd', 0),
    mapping('3000-4000', 'r--p', '/usr/lib/libc.so.6', 4),
    mapping('4000-5000', 'rw-p', '/usr/bin/weftd', 0),
    mapping('5000-6000', 'rw-p', '', 0),
    mapping('6000-7000', 'r--s', '/usr/bin/weftd', 0),
    mapping('7ffd0000-7ffd1000', 'r-xp', '[vdso]', 0)
  ].join('')
  assert.deepEqual(unchangedFiles(smaps), [
    [0x1000n, 0x2000n],
    [0x2000n, 0x3000n]
  ])
})

test('after it, less of our own file is resident, and everything still works', () => {
  const resident = () => Number(/^RssFile:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
  const before = resident()
  releaseFiles()
  assert.ok(resident() < before)
  assert.equal(JSON.stringify(new Intl.NumberFormat('de').format(1234567.8)), '"1.234.567,8"')
})

test('after garbage was collected, the heap that held it belongs to the system again', () => {
  const anonymous = () => Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1])
  let lists: unknown[] | undefined = Array.from({ length: 200_000 }, (_, at) => [at, `${at}`])
  const full = anonymous()
  assert.equal(lists.length, 200_000)
  lists = undefined
  releaseHeap()
  assert.ok(anonymous() < full - 10_000, `${full} kB before, ${anonymous()} kB after`)
})
