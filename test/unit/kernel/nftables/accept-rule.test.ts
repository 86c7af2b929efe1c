// Weft's accepts as nf_tables messages, and the decoder of rules: what is encoded is decoded as one of ours, and no
// bytes at all can crash the decoder.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MalformedMessage, type MessageWriter, readMessages } from '../../../../daemon/kernel/netlink/message.ts'
import { NFNL_SUBSYS, NFPROTO, netfilterRequest } from '../../../../daemon/kernel/netlink/nfnetlink.ts'
import { acceptEdit } from '../../../../daemon/kernel/nftables/accept-rule.ts'
import { decodeRule } from '../../../../daemon/kernel/nftables/decode-rule.ts'
import { setElements } from '../../../../daemon/kernel/nftables/decode-set.ts'
import { foreignRule } from '../../../../daemon/kernel/nftables/parse-foreign-tables.ts'
import { ruleText } from '../../../../daemon/kernel/nftables/rule-text.ts'
import {
  NFT_MSG,
  NFTA_EXPR,
  NFTA_EXTENSION,
  NFTA_LIST_ELEM,
  NFTA_QUEUE,
  NFTA_RULE
} from '../../../../daemon/kernel/nftables/uapi.ts'
import type { ForeignCondition, ForeignTable, ForeignVerdict } from '../../../../daemon/state/foreign-chain.ts'
import type { ForeignAccept } from '../../../../daemon/state/object.ts'
import { formatPrefix, network, parsePrefix } from '../../../../ipam/address.ts'

const side = { devices: [], adminChains: [] }
const nobody = () => undefined

const accept = (family: 'ip' | 'ip6' | 'inet', match: ForeignAccept['match'], text: string): ForeignAccept => {
  const prefix = parsePrefix(text) ?? assert.fail(text)
  return { kind: 'accept', tool: 'nft', family, table: 'guard', chain: 'forward', match, prefix }
}

/** A table that drops everything, so that an accept has a place. */
const dropping = ({ family, table, chain }: ForeignAccept): ForeignTable => ({
  tool: 'nft',
  family,
  table,
  chains: new Map([
    [
      chain,
      {
        name: chain,
        policy: 'drop',
        rules: [{ handle: 7, branches: [{ conditions: [], verdict: { kind: 'drop' } }], text: 'drop' }]
      }
    ]
  ])
})

const prefixes = {
  ip: ['10.244.0.0/16', '10.240.0.0/12', '10.0.0.0/8', '192.0.2.1/32'],
  ip6: ['fd00:10::/48', 'fd00:10:0:8::/61', '2001:db8::1/128']
} as const

for (const [family, texts] of [
  ['ip', prefixes.ip],
  ['ip6', prefixes.ip6],
  ['inet', [...prefixes.ip, ...prefixes.ip6]]
] as const) {
  test(`an accept in a table of family ${family} is decoded as ours`, () => {
    for (const text of texts) {
      for (const match of ['source', 'destination'] as const) {
        const object = accept(family, match, text)
        const { messages, before, deleted } = acceptEdit({ do: 'put', object }, [dropping(object)], side)
        const [bytes, ...more] = messages
        assert.ok(bytes)
        assert.deepEqual({ more, before, deleted }, { more: [], before: 7, deleted: [] })
        const [message] = readMessages(bytes)
        assert.ok(message)
        const { json } = decodeRule(message, family, nobody)
        const rule = foreignRule(json, new Map())
        assert.deepEqual(rule.ours, { match, prefix: network(object.prefix) }, formatPrefix(object.prefix))
        const protocol = object.prefix.ip.family === 4 ? 'ip' : 'ip6'
        const address = text.replace(/\/(32|128)$/, '')
        assert.equal(
          ruleText(json.expr, json.comment),
          `${protocol} ${match === 'source' ? 'saddr' : 'daddr'} ${address} accept comment "weft"`
        )
      }
    }
  })
}

test('a RETURN before the call of what drops everything is decoded as ours', () => {
  const object = { ...accept('ip', 'source', '10.244.0.0/16'), chain: 'user', verdict: 'return' as const }
  const base = dropping({ ...object, chain: 'forward' })
  const branch = (verdict: ForeignVerdict, ...conditions: readonly ForeignCondition[]) => ({
    ...{ handle: 9, text: '', branches: [{ conditions, verdict }] }
  })
  const bridge = { kind: 'interface', names: ['cni0'], negated: false, side: 'in' } as const
  const rules = [branch({ kind: 'jump', chain: 'user' }), branch({ kind: 'drop' }, bridge)]
  const chains = new Map([
    ['forward', { name: 'forward', policy: 'accept' as const, rules }],
    ['user', { name: 'user', rules: [branch({ kind: 'drop' })] }]
  ])
  const { messages, before } = acceptEdit({ do: 'put', object }, [{ ...base, chains }], { ...side, devices: ['cni0'] })
  const [message] = readMessages(messages[0] ?? assert.fail('no message'))
  const { json } = decodeRule(message ?? assert.fail(), 'ip', nobody)
  assert.deepEqual(
    [before, foreignRule(json, new Map()).ours],
    [9, { match: 'source', prefix: object.prefix, verdict: 'return' }]
  )
  assert.equal(ruleText(json.expr, json.comment), 'ip saddr 10.244.0.0/16 return comment "weft"')
  // An accept takes its place when the rule behind the call is gone.
  const ours = [
    { match: 'source', prefix: object.prefix, verdict: 'return' } as const,
    { match: 'source', prefix: object.prefix } as const
  ]
  const both = ours.map((one, at) => ({ handle: 20 + at, text: '', branches: [], ours: one }))
  const after = new Map([...chains, ['user', { name: 'user', rules: [...both, branch({ kind: 'drop' })] }]])
  const { verdict: _, ...acceptance } = object
  const deleted = (one: ForeignAccept) =>
    acceptEdit({ do: 'remove', object: one }, [{ ...base, chains: after }], side).deleted
  assert.deepEqual([deleted(object), deleted(acceptance)], [[20], [21]])
})

test('a queue has its numbers where packets are dropped without a program', () => {
  const verdictOf = (name: 'queue' | 'target', fill: (data: MessageWriter) => unknown) => {
    const request = netfilterRequest(NFNL_SUBSYS.nftables, NFT_MSG.newRule, NFPROTO.ip)
    const bytes = request.nest(NFTA_RULE.expressions, (list) =>
      list.nest(NFTA_LIST_ELEM, (one) => one.text(NFTA_EXPR.name, name).nest(NFTA_EXPR.data, (data) => void fill(data)))
    )
    const [message] = readMessages(bytes.done())
    return foreignRule(decodeRule(message ?? assert.fail(), 'ip', nobody).json, new Map()).branches[0]?.verdict
  }
  const native = (flags: number) =>
    verdictOf('queue', (data) =>
      data.bytes(NFTA_QUEUE.number, [0, 7]).bytes(NFTA_QUEUE.total, [0, 2]).bytes(NFTA_QUEUE.flags, [0, flags])
    )
  const target = (...info: readonly number[]) =>
    verdictOf('target', (data) => data.text(NFTA_EXTENSION.name, 'NFQUEUE').bytes(NFTA_EXTENSION.info, info))
  assert.deepEqual(native(0), { kind: 'queue', numbers: [7, 8] })
  assert.deepEqual(native(1), { kind: 'queue' })
  assert.deepEqual(target(7, 0, 2, 0, 0, 0, 0, 0), { kind: 'queue', numbers: [7, 8] })
  assert.deepEqual(target(7, 0, 0, 0), { kind: 'queue', numbers: [7, 7] })
  assert.deepEqual(target(7, 0, 1, 0, 1, 0, 0, 0), { kind: 'queue' })
})

test('no bytes crash the decoder of rules and elements', () => {
  const object = accept('inet', 'source', '10.240.0.0/12')
  const [good] = acceptEdit({ do: 'put', object }, [dropping(object)], side).messages
  assert.ok(good)
  const change = fc.tuple(fc.nat(good.length - 1), fc.nat(255))
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), (changes) => {
      const bytes = Buffer.from(good)
      for (const [at, value] of changes) bytes[at] = value
      try {
        for (const message of readMessages(bytes)) {
          const { json } = decodeRule(message, 'inet', nobody)
          ruleText(json.expr, json.comment)
          foreignRule(json, new Map())
          setElements(message)
        }
      } catch (error) {
        assert.ok(error instanceof MalformedMessage, String(error))
      }
    }),
    { numRuns: 2_000 }
  )
})
