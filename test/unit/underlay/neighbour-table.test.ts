// A full neighbour table of the kernel: seen by its counters, reported with what to set, and over after a minute.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { NeighbourTable } from '../../../daemon/underlay/neighbour-table.ts'

/** As Linux 6.18 prints it, one line for each processor. */
const printed = (...fulls: readonly number[]) =>
  [
    'entries  allocs   destroys hash_grows lookups  hits     res_failed rcv_probes_mcast rcv_probes_ucast periodic_gc_runs forced_gc_runs unresolved_discards table_fulls',
    ...fulls.map(
      (full) =>
        `00000029 00022568 00020df6 00000003   000a948a 0002a449 0000182e   00000000         00000000         000012af         00018f19       00000000            ${full.toString(16).padStart(8, '0')}`
    ),
    ''
  ].join('\n')

function scene() {
  const world = { now: 0, arp: printed(0x1f0, 3), ndisc: undefined as string | undefined, limit: '1024' }
  const raised: { detail?: string; cure?: string | undefined } = {}
  const table = new NeighbourTable({
    health: {
      raise: (code, detail, cure) => {
        assert.equal(code, 'NEIGHBOUR_TABLE_FULL')
        Object.assign(raised, { detail, cure })
      },
      clear: () => {
        delete raised.detail
      }
    },
    stat: (name) => (name === 'arp_cache' ? world.arp : world.ndisc),
    sysctl: (path) => (path.endsWith('gc_thresh3') ? world.limit : undefined),
    now: () => world.now
  })
  return { world, raised, step: () => table.step() }
}

test('what was refused before weftd started is no fault; what is refused now is one, for a minute', () => {
  const { world, raised, step } = scene()
  step()
  assert.equal(raised.detail, undefined)
  world.arp = printed(0x1f0, 4)
  step()
  assert.match(raised.detail ?? '', /^net\/ipv4\/neigh\/default\/gc_thresh3 is 1024, and the kernel has no room/)
  assert.match(raised.cure ?? '', /gc_thresh2=4096 net\/ipv4\/neigh\/default\/gc_thresh3=8192/)
  world.now = 59_999
  step()
  assert.notEqual(raised.detail, undefined)
  world.now = 60_000
  step()
  assert.equal(raised.detail, undefined)
})

test('IPv6 has a table of its own, and a larger limit is advised than there is', () => {
  const { world, raised, step } = scene()
  world.ndisc = printed(0)
  world.limit = '16384'
  step()
  world.ndisc = printed(0xa)
  step()
  assert.match(raised.cure ?? '', /net\/ipv6\/neigh\/default\/gc_thresh3=65536/)
})

test('a kernel or a namespace without the counters, or with others, is no fault', () => {
  const { world, raised, step } = scene()
  for (const text of ['', 'entries lookups\n00000001 00000002\n', 'table_fulls\nnonsense\n\n']) {
    world.arp = text
    step()
  }
  assert.equal(raised.detail, undefined)
})

test('this kernel has the counter', { skip: missing() }, () => {
  assert.match(readFileSync('/proc/net/stat/arp_cache', 'utf8'), /^[^\n]*\btable_fulls\b/)
})

function missing(): string | false {
  try {
    readFileSync('/proc/net/stat/arp_cache')
    return false
  } catch {
    return 'this is not the first network namespace'
  }
}
