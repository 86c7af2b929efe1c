// Chains of another program: found in a listing, and removed with the rules that jump there and nothing else.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  legacyRemoval,
  otherChains,
  removeOtherChains,
  textOfNamed
} from '../../../../daemon/kernel/nftables/other-chains.ts'
import type { NftResult } from '../../../../daemon/kernel/nftables/session.ts'

const chain = (table: string, name: string, family = 'ip') => ({ chain: { family, table, name, handle: 1 } })
const rule = (name: string, handle: number, target?: string) => ({
  rule: {
    family: 'ip',
    table: 'nat',
    chain: name,
    handle,
    expr: [{ xt: null }, ...(target ? [{ jump: { target } }] : [])]
  }
})
const listings: Readonly<Record<string, readonly object[]>> = {
  'list chains': [
    chain('nat', 'POSTROUTING'),
    chain('nat', 'FLANNEL-POSTRTG'),
    chain('nat', 'KUBE-X'),
    chain('flannel-ipv4', 'postrtg')
  ],
  'list tables': [{ table: { family: 'ip', name: 'nat' } }, { table: { family: 'ip', name: 'flannel-ipv4' } }],
  'list table ip nat': [
    rule('POSTROUTING', 4, 'KUBE-X'),
    rule('POSTROUTING', 5, 'FLANNEL-POSTRTG'),
    rule('FLANNEL-POSTRTG', 6)
  ]
}

function fake() {
  const ran: string[] = []
  const run = async (commands: string): Promise<NftResult> => {
    const listing = listings[commands]
    if (listing === undefined) ran.push(commands)
    return { done: true, output: JSON.stringify({ nftables: listing ?? [] }) }
  }
  return { run, ran }
}
const wanted = {
  isTable: (name: string) => name === 'flannel-ipv4',
  isChain: (name: string) => name.startsWith('FLANNEL-')
}

test('the rule that jumps there goes first, then the chain, then the table, in one transaction', async () => {
  const { run, ran } = fake()
  const found = await otherChains(run, wanted)
  assert.deepEqual(found.map(textOfNamed), ['ip flannel-ipv4', 'ip nat FLANNEL-POSTRTG'])
  await removeOtherChains(run, found)
  assert.deepEqual(ran, [
    'delete rule ip nat POSTROUTING handle 5; flush chain ip nat FLANNEL-POSTRTG; delete table ip flannel-ipv4; delete chain ip nat FLANNEL-POSTRTG'
  ])
})

test('where nothing is found, nothing is sent; a complaint of the kernel is an error', async () => {
  const { run, ran } = fake()
  await removeOtherChains(run, [])
  assert.deepEqual(ran, [])
  const refuse = async (): Promise<NftResult> => ({ done: false, complaints: [{ words: 'no access', at: -1 }] })
  await assert.rejects(otherChains(refuse, wanted), /no access/)
})

test('of iptables-legacy the same, as input of iptables-restore --noflush', () => {
  const saved = `*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -j KUBE-FORWARD
COMMIT
*nat
:POSTROUTING ACCEPT [1:2]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE
-A FLANNEL-POSTRTG -m comment --comment "flanneld masq" -j RETURN
COMMIT
`
  assert.equal(
    legacyRemoval(saved, (name) => name.startsWith('FLANNEL-')),
    '*nat\n-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\n-F FLANNEL-POSTRTG\n-X FLANNEL-POSTRTG\nCOMMIT\n'
  )
  assert.equal(
    legacyRemoval(saved, () => false),
    ''
  )
})
