// VLANs of bridge ports: sets of IDs, what a port must have, and what several pods want of their bridge.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { difference } from '../../../daemon/state/difference.ts'
import { contradictions, merge } from '../../../daemon/state/merge.ts'
import { type KernelObject, type PortVlans, sameObject, stateOf } from '../../../daemon/state/object.ts'
import { isDefaultVlan, otherRanges, parseRanges, rangesText, vlanRanges } from '../../../daemon/state/vlans.ts'

const ranges = (text: string) => parseRanges(text) ?? assert.fail(text)
const vlans = (untagged: string, tagged = '', more: Partial<PortVlans> = {}): PortVlans => ({
  ...{ kind: 'vlans', device: 'veth1' },
  untagged: untagged === '' ? [] : ranges(untagged),
  tagged: tagged === '' ? [] : ranges(tagged),
  ...more
})

test('IDs are ranges in ascending order, in the syntax of bridge(8)', () => {
  assert.equal(rangesText(vlanRanges([7, 5, 6, 1, 4094, 6])), '1,5-7,4094')
  assert.equal(rangesText(ranges('10-12,11-20,21,1')), '1,10-21')
  assert.equal(rangesText(otherRanges(ranges('1-99,101'), ranges('200'))), '100,102-199,201-4094')
  for (const text of ['', '0', '4095', '5-4', 'a', '1,', '1-2-3']) assert.equal(parseRanges(text), undefined, text)
})

test('a port may have other VLANs, unless these are all that it is to have', () => {
  const observed = vlans('1,100', '', { pvid: 100 })
  const wanted = vlans('100', '', { pvid: 100 })
  assert.equal(sameObject(wanted, observed), true)
  assert.equal(sameObject({ ...wanted, isExact: true }, observed), false)
  assert.equal(sameObject({ ...wanted, isExact: true }, wanted), true)
  assert.equal(sameObject(wanted, vlans('1,100', '', { pvid: 1 })), false)
  assert.equal(sameObject(wanted, vlans('1', '100', { pvid: 100 })), false)
  const trunk = vlans('', '10-20', { isExact: true })
  assert.deepEqual(
    [vlans('', '10-20'), vlans('', '10-19'), vlans('20', '10-20', { pvid: 20 }), vlans('', '10-21')].map((each) =>
      sameObject(trunk, each)
    ),
    [true, false, false, false]
  )
})

test('a bridge has the VLANs of all its pods, and a second VLAN without a tag is a contradiction', () => {
  const merged = merge(vlans('', '100'), vlans('', '200')) as PortVlans
  assert.equal(rangesText(merged.tagged), '100,200')
  assert.deepEqual(contradictions(vlans('', '200'), merged), [])
  const [one, two] = [vlans('1', '', { pvid: 1 }), vlans('2', '', { pvid: 2 })]
  assert.deepEqual(contradictions(two, merge(one, two)).includes('pvid'), true)
})

test('VLANs are missing on a port only, and are set at once where they are asked for', () => {
  const want = vlans('100', '', { pvid: 100 })
  const link: KernelObject = { kind: 'link', name: 'veth1', form: { type: 'veth' }, master: 'br1' }
  const changes = (observed: readonly KernelObject[], isRequested = false) =>
    difference(stateOf([want]), stateOf(observed), undefined, isRequested).filter(({ do: what }) => what === 'put')
      .length
  assert.deepEqual([changes([]), changes([{ ...link, master: '' }]), changes([link])], [0, 0, 1])
  assert.equal(changes([], true), 1)
})

test('a port that nobody gave VLANs has the default one, or none', () => {
  assert.deepEqual(
    [vlans('1', '', { pvid: 1 }), vlans(''), vlans('1', '5', { pvid: 1 }), vlans('2', '', { pvid: 2 })].map(
      isDefaultVlan
    ),
    [true, true, false, false]
  )
})
