// Where masquerading and forwarding are, and that their chains in iptables follow the node's place and the iptables that
// the host uses.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AsyncQueue } from '../../../daemon/base/async-queue.ts'
import { chooseFirewall, IptablesFirewall } from '../../../daemon/node/iptables-firewall.ts'
import type { Place } from '../../../daemon/node/place.ts'
import { type IptablesTool, type KernelObject, keyOf } from '../../../daemon/state/object.ts'
import { parsePrefix } from '../../../ipam/address.ts'
import { silent } from '../logs.ts'

const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text)
const placeWith = (subnet: string): Place =>
  ({
    node: { subnet: { 4: prefix(subnet) } },
    conf: { families: { 4: { network: prefix('10.244.0.0/16') } } }
  }) as unknown as Place

test('auto is nftables unless the kernel lacks something for it; a flag is never doubted', async () => {
  const lacks = (what: 'masquerade' | 'nat') => async () => ({ what, why: 'No such file or directory' })
  const asked = () => assert.fail('asked the kernel')
  assert.deepEqual(await chooseFirewall('auto', async () => undefined, silent), { kind: 'nftables' })
  assert.deepEqual(await chooseFirewall('auto', lacks('masquerade'), silent), { kind: 'iptables' })
  const legacy = { kind: 'iptables', only: 'iptables-legacy' }
  assert.deepEqual(await chooseFirewall('auto', lacks('nat'), silent), legacy)
  assert.deepEqual(await chooseFirewall('nftables', asked, silent), { kind: 'nftables' })
  assert.deepEqual(await chooseFirewall('iptables', asked, silent), { kind: 'iptables' })
})

test('chains wait for the kind of iptables, and move when the host uses another one or has another subnet', async () => {
  const wanted: (readonly string[])[] = []
  const options = { ipMasq: true, randomFully: true, forwardRules: false }
  const reconciler = {
    want: async (_: string, objects: readonly KernelObject[]) => {
      wanted.push(objects.map((object) => `${keyOf(object)} ${'rules' in object ? object.rules?.[2] : ''}`))
      return []
    }
  }
  const firewall = new IptablesFirewall({ reconciler, options, log: silent })
  const tools = new AsyncQueue<IptablesTool>()
  const following = firewall.follow(tools)
  const used = firewall.use(placeWith('10.244.1.0/24'))
  assert.deepEqual(wanted, [])
  tools.push('iptables-legacy')
  await used
  const in1 = 'nat WEFT-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN'
  assert.deepEqual(wanted.at(-1), [`iptables chain iptables-legacy ip ${in1}`])
  await firewall.use(placeWith('10.244.2.0/24'))
  assert.deepEqual(wanted.at(-1), [`iptables chain iptables-legacy ip ${in1.replace('10.244.1', '10.244.2')}`])
  tools.push('iptables-nft')
  tools.end()
  await following
  assert.deepEqual(wanted.at(-1), [`iptables chain iptables-nft ip ${in1.replace('10.244.1', '10.244.2')}`])
})
