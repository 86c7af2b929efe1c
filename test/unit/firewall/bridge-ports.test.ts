// Rules for bridge ports as text, and the sets and chains that existing elements need.
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  bridgePortBaseFor,
  isolatedBridge,
  isolatedPort,
  isolationBase,
  ownSource,
  sourceCheckBase
} from '../../../daemon/firewall/bridge-ports.ts'
import { type KernelObject, type NftElement, parseMac } from '../../../daemon/state/object.ts'
import { mayRemove } from '../../../daemon/state/ownership.ts'
import { textOf } from '../../../daemon/state/text.ts'

const rules = (objects: readonly KernelObject[]) =>
  objects.flatMap((object) => (object.kind === 'nft-chain' ? [`${object.family} ${object.hook}: ${object.rules}`] : []))
const mac = parseMac('02:00:00:00:00:01') ?? assert.fail()
const elementsIn = (objects: readonly KernelObject[]) =>
  objects.filter((object): object is NftElement => object.kind === 'nft-element')

describe('ports of a bridge', () => {
  it('whose source is checked let frames with their own address pass, and no others', () => {
    assert.deepEqual(rules(sourceCheckBase()), [
      'bridge type filter hook prerouting priority -250: iifname @checked_ports iifname . ether saddr != @port_sources drop'
    ])
    assert.deepEqual(ownSource('veth1', mac, 'veth1', 'pod a/b').map(textOf), [
      'element bridge weft checked_ports { "veth1" comment "veth1 pod a/b" }',
      'element bridge weft port_sources { "veth1" . 02:00:00:00:00:01 comment "veth1 pod a/b" }'
    ])
  })

  it('that are isolated do not reach each other', () => {
    assert.deepEqual(rules(isolationBase()), [
      'bridge type filter hook forward priority -250: iifname @isolated_ports oifname @isolated_ports drop'
    ])
    assert.equal(
      textOf(isolatedPort('veth1', 'ports-1-2-apart', 'x')),
      'element bridge weft isolated_ports { "veth1" comment "ports-1-2-apart x" }'
    )
  })

  it('of bridges that are isolated from each other: nothing is routed between these', () => {
    assert.deepEqual(rules(isolatedBridge('br1')), [
      'inet type filter hook forward priority filter - 5: iifname "br1" oifname != "br1" oifname @isolated_bridges drop'
    ])
  })

  it('ask for their sets and chains again by what exists, a bridge only while it is there', () => {
    const standing = elementsIn([
      ...ownSource('veth1', mac, 'veth1', 'x'),
      isolatedPort('veth1', 'm', 'x'),
      ...isolatedBridge('br1'),
      ...isolatedBridge('br2')
    ])
    assert.deepEqual(
      bridgePortBaseFor(standing, (device) => device === 'br1').map(textOf),
      [...sourceCheckBase(), ...isolationBase(), ...isolatedBridge('br1')].map(textOf)
    )
    assert.deepEqual(
      bridgePortBaseFor([], () => true),
      []
    )
  })

  it('are ours by their table, so that what nobody wants goes', () => {
    for (const object of [...sourceCheckBase(), ...isolatedBridge('br1')])
      assert.equal(
        mayRemove(object, () => undefined),
        true
      )
  })
})
