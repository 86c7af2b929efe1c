// Where the chains of the administrator are called.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { adminCalls } from '../../../daemon/firewall/admin-calls.ts'
import { savedTables } from '../../../daemon/kernel/nftables/iptables-save.ts'
import { keyOf } from '../../../daemon/state/object.ts'

const [named, theirs] = [
  { name: 'NOMAD-ADMIN', isMade: true },
  { name: 'CNI-ADMIN', isMade: false }
]
const legacy = (...chains: readonly string[]) =>
  savedTables(['*filter', ':FORWARD ACCEPT', ...chains.map((chain) => `:${chain} -`), 'COMMIT'].join('\n'), 4)
const calls = (...parameters: Parameters<typeof adminCalls>) => adminCalls(...parameters).map(keyOf)

test('a chain is called where it is', () =>
  assert.deepEqual(calls(legacy('CNI-ADMIN'), [theirs], new Set([4, 6])), [
    'admin-call iptables-legacy ip filter FORWARD CNI-ADMIN'
  ]))
test('one that the configuration names is made: in iptables-legacy where that is used, else in nftables', () => {
  assert.deepEqual(calls(legacy(), [named, theirs], new Set([4, 6])), [
    'admin-call iptables-legacy ip filter FORWARD NOMAD-ADMIN',
    'admin-call iptables-nft ip6 filter FORWARD NOMAD-ADMIN'
  ])
})
test('for a family without packets none is made', () =>
  assert.deepEqual(calls([], [named], new Set([4])), ['admin-call iptables-nft ip filter FORWARD NOMAD-ADMIN']))
