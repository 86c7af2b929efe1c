// The pool's rules: which ranges are right, which address is next, and that the walk is quick in any size of subnet.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { formatIp, type Ip, offset, parseIp, parsePrefix } from '../../../ipam/address.ts'
import {
  assign,
  capacity,
  nextFree,
  type PoolAddress,
  type RangeConfig,
  type RangeSet,
  rangeSets,
  requestedFrom
} from '../../../ipam/pool.ts'

const ip = (text: string): Ip => parseIp(text) ?? assert.fail(text)
const range = (
  subnet: string,
  rest: Partial<Record<'rangeStart' | 'rangeEnd' | 'gateway', string>> = {}
): RangeConfig => ({
  subnet: parsePrefix(subnet) ?? assert.fail(subnet),
  ...Object.fromEntries(Object.entries(rest).map(([key, text]) => [key, ip(text)]))
})
const set = (...ranges: readonly RangeConfig[]): RangeSet => rangeSets([ranges])[0] ?? assert.fail()
const textOf = (address: PoolAddress | undefined) =>
  address && `${formatIp(address.prefix.ip)}/${address.prefix.length} via ${formatIp(address.gateway)}`

/** Addresses in the order in which they are given out, until `count` or none is left. */
function addressesGiven(
  pool: RangeSet,
  last: string | undefined,
  taken: readonly string[],
  count = 1000
): readonly string[] {
  const held = new Set(taken)
  const out: string[] = []
  let from = last === undefined ? undefined : ip(last)
  while (out.length < count) {
    const next = nextFree(pool, from, (each) => held.has(formatIp(each)))
    if (next === undefined) break
    from = next.prefix.ip
    held.add(formatIp(from))
    out.push(formatIp(from))
  }
  return out
}

describe('the next address of a pool', () => {
  it('goes upwards and leaves out network, gateway and broadcast address', () => {
    assert.deepEqual(addressesGiven(set(range('10.20.0.0/29')), undefined, []), [
      '10.20.0.2',
      '10.20.0.3',
      '10.20.0.4',
      '10.20.0.5',
      '10.20.0.6'
    ])
  })

  it('lets a freed address rest until all others had their turn', () => {
    assert.deepEqual(addressesGiven(set(range('10.20.0.0/29')), '10.20.0.4', ['10.20.0.4']), [
      '10.20.0.5',
      '10.20.0.6',
      '10.20.0.2',
      '10.20.0.3'
    ])
  })

  it('begins anew behind the last address of the set, and when the last address given is in no range of it', () => {
    assert.deepEqual(addressesGiven(set(range('10.20.0.0/29')), '10.20.0.6', [], 1), ['10.20.0.2'])
    assert.deepEqual(addressesGiven(set(range('10.20.0.0/29')), '192.0.2.1', [], 1), ['10.20.0.2'])
  })

  it('goes on in the next range when the first is full, and gives the subnet and gateway of that range', () => {
    const pool = set(range('10.1.0.0/30'), range('10.2.0.0/30'))
    assert.deepEqual(addressesGiven(pool, undefined, []), ['10.1.0.2', '10.2.0.2'])
    assert.equal(textOf(nextFree(pool, ip('10.1.0.2'), () => false)), '10.2.0.2/30 via 10.2.0.1')
  })

  it('keeps to start and end, and takes the gateway that is configured', () => {
    const pool = set(range('10.1.0.0/24', { rangeStart: '10.1.0.10', rangeEnd: '10.1.0.13', gateway: '10.1.0.11' }))
    assert.deepEqual(addressesGiven(pool, undefined, []), ['10.1.0.10', '10.1.0.12', '10.1.0.13'])
  })

  it('costs one look per address that is passed, in a /64 too', () => {
    let looks = 0
    const pool = set(range('fd00:10::/64'))
    const next = nextFree(pool, undefined, () => looks++ < 5)
    assert.equal(textOf(next), 'fd00:10::7/64 via fd00:10::1')
    assert.equal(looks, 6)
  })

  it('uses the very last address of an IPv6 subnet, which has no broadcast', () => {
    assert.deepEqual(addressesGiven(set(range('fd00::/126')), undefined, []), ['fd00::2', 'fd00::3'])
    assert.deepEqual(
      addressesGiven(set(range('ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126')), undefined, []).at(-1),
      'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
    )
  })

  it('gives every address exactly once, whatever was given last and whatever the family', () => {
    const pools = [
      set(range('10.20.0.0/28')),
      set(range('10.1.0.0/29'), range('10.2.0.0/30')),
      set(range('fd00::/124'))
    ]
    fc.assert(
      fc.property(fc.constantFrom(...pools), fc.bigInt(0n, 40n), (pool, by) => {
        const last = offset(pool[0]?.subnet.ip ?? assert.fail(), by)
        const all = addressesGiven(pool, last && formatIp(last), [])
        assert.equal(BigInt(all.length), capacity(pool))
        assert.equal(new Set(all).size, all.length)
      })
    )
  })
})

describe('ranges', () => {
  const wrong: readonly (readonly [string, readonly (readonly RangeConfig[])[], RegExp])[] = [
    ['a subnet with host bits', [[range('10.1.2.3/24')]], /10\.1\.2\.3\/24 has host bits set.*10\.1\.2\.0\/24/],
    ['a subnet without room', [[range('10.1.2.0/31')]], /10\.1\.2\.0\/31 is too small/],
    [
      'a start outside',
      [[range('10.1.2.0/24', { rangeStart: '10.1.3.5' })]],
      /rangeStart 10\.1\.3\.5 is not in subnet 10\.1\.2\.0\/24/
    ],
    ['an end outside', [[range('10.1.2.0/24', { rangeEnd: '10.1.3.5' })]], /rangeEnd 10\.1\.3\.5/],
    [
      'a start behind the end',
      [[range('10.1.2.0/24', { rangeStart: '10.1.2.9', rangeEnd: '10.1.2.8' })]],
      /rangeStart 10\.1\.2\.9 comes after/
    ],
    ['a gateway of the other family', [[range('10.1.2.0/24', { gateway: 'fd00::1' })]], /gateway fd00::1/],
    ['mixed families', [[range('10.1.2.0/24'), range('fd00::/64')]], /mixed address families/],
    [
      'an overlap inside a set',
      [[range('10.1.0.0/16'), range('10.1.2.0/24')]],
      /10\.1\.0\.0\/16 and 10\.1\.2\.0\/24 overlap/
    ],
    ['an overlap between sets', [[range('10.1.0.0/16')], [range('10.1.2.0/24')]], /range set 0 overlaps with 1/],
    ['an empty set', [[]], /range set 0 is empty/]
  ]
  for (const [what, sets, message] of wrong) {
    it(`refuses ${what}, naming it`, () => assert.throws(() => rangeSets(sets), { name: 'RangeRuleError', message }))
  }

  it('takes two ranges of one subnet that do not meet', () => {
    const [pool] = rangeSets([
      [
        range('10.1.0.0/24', { rangeEnd: '10.1.0.9' }),
        range('10.1.0.0/24', { rangeStart: '10.1.0.20', rangeEnd: '10.1.0.21' })
      ]
    ])
    assert.deepEqual(addressesGiven(pool ?? [], undefined, []).slice(-3), ['10.1.0.9', '10.1.0.20', '10.1.0.21'])
  })
})

describe('a request for a certain address', () => {
  const sets = rangeSets([[range('10.1.0.0/24')], [range('fd00::/64')]])

  it('is served by the set that holds it, and each set serves one', () => {
    const { bySet, unserved } = assign(sets, [ip('fd00::5'), ip('10.1.0.7'), ip('10.1.0.8'), ip('192.0.2.1')])
    assert.deepEqual(
      bySet.map((each) => each && formatIp(each)),
      ['10.1.0.7', 'fd00::5']
    )
    assert.deepEqual(unserved.map(formatIp), ['10.1.0.8', '192.0.2.1'])
  })

  it('gets the length and the gateway of its range; the gateway itself is never given', () => {
    const [v4] = sets
    const found = requestedFrom(v4 ?? [], ip('10.1.0.7'))
    assert.equal(found?.kind === 'address' && textOf(found.address), '10.1.0.7/24 via 10.1.0.1')
    assert.deepEqual(requestedFrom(v4 ?? [], ip('10.1.0.1')), {
      kind: 'never',
      why: "requested ip 10.1.0.1 is subnet's gateway"
    })
    assert.equal(requestedFrom(v4 ?? [], ip('10.9.0.1')), undefined)
  })
})
