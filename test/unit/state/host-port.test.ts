// Host ports as elements: written, read back, found by their pod's link; and what conntrack must forget when one
// changes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { elementsOf, hostPortElement, hostPortOf, staleFlows } from '../../../daemon/state/host-port.ts'
import { keyOf, stateOf } from '../../../daemon/state/object.ts'
import { textOf } from '../../../daemon/state/text.ts'
import { parseIp } from '../../../ipam/address.ts'

const ip = (text: string) => parseIp(text) ?? assert.fail(text)
const entry = { protocol: 'udp', port: 53, to: { ip: ip('10.244.1.2'), port: 5353 } } as const
const element = (over: object = {}, link = 'veth01234567', whose = 'pod a/b') =>
  hostPortElement({ ...entry, ...over }, link, whose)

test('an element is what nft takes and prints', () => {
  assert.equal(
    textOf(element()),
    'element inet weft host_ports_4 { udp . 53 comment "veth01234567 pod a/b" : 10.244.1.2 . 5353 }'
  )
  assert.equal(
    textOf(element({ at: ip('192.0.2.1'), protocol: 'tcp' })),
    'element inet weft host_ports_at_4 { 192.0.2.1 . tcp . 53 comment "veth01234567 pod a/b" : 10.244.1.2 . 5353 }'
  )
  const six = { to: { ip: ip('fd00::2'), port: 1 }, at: ip('fd00::1') }
  assert.equal(
    textOf(element(six)),
    'element inet weft host_ports_at_6 { fd00::1 . udp . 53 comment "veth01234567 pod a/b" : fd00::2 . 1 }'
  )
})

test('0.0.0.0 and :: are every address', () => {
  assert.equal(keyOf(element({ at: ip('0.0.0.0') })), keyOf(element()))
  assert.equal(element({ at: ip('::'), to: { ip: ip('fd00::2'), port: 1 } }).set, 'host_ports_6')
})

test('a comment is ASCII without quotes, at most 127 bytes, and begins with the link', () => {
  const { comment = '' } = element({}, 'veth01234567', `pod "ä" ${'x'.repeat(300)}`)
  assert.equal(comment.length, 127)
  assert.ok(comment.startsWith('veth01234567 pod ??? xxx'), comment)
})

test('what is read back is what was written', () => {
  for (const over of [
    {},
    { protocol: 'sctp' },
    { at: ip('192.0.2.1') },
    { at: ip('fd00::1'), to: { ip: ip('fd00::2'), port: 9 } }
  ])
    assert.deepEqual(hostPortOf(element(over)), { ...entry, ...over })
  assert.equal(hostPortOf({ ...element(), set: 'others' }), undefined)
  assert.equal(hostPortOf({ ...element(), table: 'nat' }), undefined)
  assert.equal(hostPortOf({ ...element(), key: 'icmp . 5' }), undefined)
  assert.equal(hostPortOf({ ...element(), value: 'accept' }), undefined)
})

test('a pod’s elements are found by its link and nothing less', () => {
  const mine = element()
  const state = stateOf([
    mine,
    element({ port: 54 }, 'veth0123456'),
    { ...element({ port: 55 }), comment: 'x veth01234567' }
  ])
  assert.deepEqual(elementsOf('veth01234567', state), [mine])
})

test('with a UDP port goes what was translated by it, and with a new one what nobody has answered', () => {
  const place = { family: 4, port: 53 } as const
  assert.deepEqual(staleFlows({ do: 'put', object: element() }), [place])
  assert.deepEqual(staleFlows({ do: 'remove', object: element() }), [{ ...place, translatedTo: entry.to }])
  const instead = element({ to: { ip: ip('10.244.1.9'), port: 7 } })
  assert.deepEqual(staleFlows({ do: 'put', object: element(), instead }), [
    { ...place, translatedTo: { ip: ip('10.244.1.9'), port: 7 } },
    place
  ])
  assert.deepEqual(staleFlows({ do: 'put', object: element({ at: ip('192.0.2.1') }) }), [
    { ...place, at: ip('192.0.2.1') }
  ])
  assert.deepEqual(staleFlows({ do: 'put', object: element({ protocol: 'tcp' }) }), [])
  assert.deepEqual(staleFlows({ do: 'put', object: { kind: 'sysctl', path: 'a', value: '1' } }), [])
})
