// The index of subnets finds what a comparison of each with each would, whatever was added and removed before.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Lease } from '../../../daemon/lease/lease.ts'
import { Subnets } from '../../../daemon/peers/subnets.ts'
import { network, overlaps, type Prefix } from '../../../ipam/address.ts'

const prefix = fc
  .tuple(fc.constantFrom<4 | 6>(4, 6), fc.nat(15), fc.integer({ min: 0, max: 4 }))
  .map(([family, value, length]): Prefix => {
    const bits = family === 4 ? 32 : 128
    return network({ ip: { family, value: BigInt(value) << BigInt(bits - 4) }, length })
  })

test('what overlaps is found', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(5), fc.array(prefix, { maxLength: 3 })), { maxLength: 30 }), (steps) => {
      const subnets = new Subnets()
      const leases = Array.from({ length: 6 }, (_, n) => ({ created: n }) as unknown as Lease)
      const held = new Map<Lease, readonly Prefix[]>()
      for (const [n, prefixes] of steps) {
        const lease = leases[n] ?? assert.fail()
        subnets.remove(lease, held.get(lease) ?? [])
        subnets.add(lease, prefixes)
        held.set(lease, prefixes)
        for (const [one, mine] of held) {
          const shared = (theirs: readonly Prefix[]) => mine.some((a) => theirs.some((b) => overlaps(a, b)))
          const expected = [...held]
            .filter(([other, theirs]) => other !== one && shared(theirs))
            .map(([other]) => other)
          assert.deepEqual(new Set(subnets.overlapping(one, mine)), new Set(expected))
        }
      }
    })
  )
})
