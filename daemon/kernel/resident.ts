// What the start or a burst alone needed is given back: pages of our own file that were read once, and the heap that grew with garbage.
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import koffi from 'koffi'

/** <asm-generic/mman-common.h>. */
const MADV_DONTNEED = 4

/**
 * Unmaps the unchanged pages of our own files; those that are needed again come back from the page cache, 64 KiB at a time, in a microsecond or so each. Of 56 MB
 * some 25 return (Node 26, November 2026). Takes 5 ms. Only what has no page of its own may be unmapped like that: a library's relocated data is read-only
 * too, and would be lost.
 */
export function releaseFiles(): void {
  const madvise = koffi.load(null).func('int madvise(uint64_t address, size_t length, int advice)')
  for (const [from, to] of unchangedFiles(readFileSync('/proc/self/smaps', 'utf8')))
    madvise(from, Number(to - from), MADV_DONTNEED)
}

type CollectGarbage = (options: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => void

let collectGarbage: CollectGarbage | undefined

/**
 * Collects garbage until nothing more comes of it, and hands the pages back to the system. V8 grows its heap while thousands of leases come in, and keeps
 * what it has: 5,000 nodes leave 99 MB of anonymous memory, of which 64 stay after this (Node 26). It holds the event loop for some 100 ms then: for after
 * a burst, not for every day.
 */
export function releaseHeap(): void {
  if (collectGarbage === undefined) {
    // The one way to V8's collector that needs no flag on the command line.
    setFlagsFromString('--expose-gc')
    collectGarbage = runInNewContext('gc') as CollectGarbage
    setFlagsFromString('--no-expose-gc')
  }
  collectGarbage({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  // <malloc.h>: glibc keeps what was freed, in an arena a thread.
  koffi.load(null).func('int malloc_trim(size_t pad)')(0)
}

/** Addresses of the mappings in proc_pid_smaps(5) that are read-only, private, of a file, and equal to it. */
export function unchangedFiles(smaps: string): readonly (readonly [from: bigint, to: bigint])[] {
  const found: (readonly [bigint, bigint])[] = []
  let mapping: readonly [bigint, bigint] | undefined
  for (const line of smaps.split('\n')) {
    const [, from, to, permissions, file] = /^([\da-f]+)-([\da-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)$/.exec(line) ?? []
    if (from !== undefined)
      mapping =
        /^r-.p$/.test(permissions ?? '') && file?.startsWith('/') ? [BigInt(`0x${from}`), BigInt(`0x${to}`)] : undefined
    else if (mapping !== undefined && /^Anonymous:\s+0 kB$/.test(line)) found.push(mapping)
  }
  return found
}
