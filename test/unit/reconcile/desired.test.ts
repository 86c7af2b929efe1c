// What several owners want of one object is merged by field, and a contradiction is an error of the later one.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { connected } from '../../../daemon/attachment/device.ts'
import { Desired } from '../../../daemon/reconcile/desired.ts'
import { contradictions, merge } from '../../../daemon/state/merge.ts'
import { type KernelObject, keyOf, type Link, type Mac } from '../../../daemon/state/object.ts'
import { parseIp, parsePrefix } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const fdb: KernelObject = {
  ...{ kind: 'fdb', device: 'weft.1', mac: '02:00:00:00:00:02' as Mac, destination: ip('203.0.113.2') }
}

describe('what several owners want of one object', () => {
  const port: Link = {
    ...{ kind: 'link', name: 'veth1', form: { type: 'veth', peer: { name: 'eth0' } }, up: true, master: 'cni0' },
    ...{ hairpin: false, isolated: true, because: 'pod a' }
  }
  const hairpin: Link = { kind: 'link', name: 'veth1', form: { type: 'veth' }, up: true, hairpin: true }
  const limit = (rate: number, because: string): KernelObject => {
    const discipline = { type: 'tbf', rate, burst: 1, limit: 1 } as const
    return { kind: 'qdisc', device: 'veth1', parent: 'root', discipline, because }
  }

  it('ends with an address that is discarded, and so does the route that comes with it', () => {
    const gateway = (text: string): readonly KernelObject[] => {
      const address = parsePrefix(text) ?? assert.fail(text)
      return [{ kind: 'address', device: 'cni0', prefix: address }, ...connected('cni0', address)]
    }
    const desired = new Desired()
    desired.replace('bridge of pod a', gateway('10.244.1.1/24'))
    desired.forget(gateway('10.244.1.1/24').slice(0, 1))
    assert.deepEqual([...desired.state.keys()], [])
    desired.replace('bridge of pod b', gateway('10.244.1.254/24'))
    assert.deepEqual(desired.refusedTo('bridge of pod b'), [])
  })

  it('is merged by field, whoever came first, and only the last one’s remains', () => {
    const desired = new Desired()
    desired.replace('pod', [port])
    desired.replace('portmap', [hairpin])
    assert.deepEqual(desired.state.get(keyOf(port)), { ...port, hairpin: true })
    assert.deepEqual([desired.refusedTo('pod'), desired.refusedTo('portmap')], [[], []])
    desired.replace('portmap', [])
    assert.deepEqual(desired.state.get(keyOf(port)), port)
    const other = new Desired()
    other.replace('portmap', [hairpin])
    other.replace('pod', [port])
    assert.deepEqual(other.state.get(keyOf(port)), { ...port, hairpin: true })
    other.replace('pod', [])
    assert.deepEqual(other.state.get(keyOf(port)), hairpin)
  })

  it('is an error where it contradicts, and the first owner keeps what it has', () => {
    const desired = new Desired()
    desired.replace('a', [limit(1000, 'pod a')])
    desired.replace('b', [limit(2000, 'network b')])
    assert.deepEqual(desired.state.get(keyOf(limit(0, ''))), limit(1000, 'pod a'))
    assert.deepEqual(desired.refusedTo('a'), [])
    const [refused] = desired.refusedTo('b')
    assert.match(
      refused?.error.message ?? '',
      /^network b wants .*16000bit.*pod a already has it .*\(discipline\.rate\)$/
    )
    desired.replace('a', [])
    assert.deepEqual(desired.state.get(keyOf(limit(0, ''))), limit(2000, 'network b'))
    assert.deepEqual(desired.refusedTo('b'), [])
  })

  it('mixes no fields of different forms', () => {
    const bridge: KernelObject = { kind: 'link', name: 'veth1', form: { type: 'bridge' } }
    assert.deepEqual(merge(bridge, hairpin), { ...hairpin, ...bridge })
    assert.deepEqual(contradictions(hairpin, merge(bridge, hairpin)), ['form.type'])
  })

  it('is the latest for entries that say where another node is now', () => {
    const moved = { ...fdb, destination: ip('203.0.113.9') } as KernelObject
    assert.equal(merge(fdb, moved), moved)
    assert.deepEqual(contradictions(moved, moved), [])
  })
})
