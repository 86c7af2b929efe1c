// Rulesets of iptables-save and a host for tests about the rules of administrators.
import assert from 'node:assert/strict'
import { savedTables } from '../../../daemon/kernel/nftables/iptables-save.ts'
import type { ForeignTable, PodSide } from '../../../daemon/state/foreign-chain.ts'
import type { ForeignAccept } from '../../../daemon/state/object.ts'
import { type Prefix, parsePrefix } from '../../../ipam/address.ts'

const prefix = (text: string): Prefix => parsePrefix(text) ?? assert.fail(text)
export const pods = prefix('10.244.0.0/16')
export const side: PodSide = { devices: ['cni0', 'weft.1', 'veth*'], carriers: ['weft.1'], adminChains: ['CNI-ADMIN'] }

/** The tables of iptables-save with these rules; chains that they name are made. */
export const saved = (policy: 'ACCEPT' | 'DROP', rules: readonly string[]): readonly ForeignTable[] => {
  const chains = new Set(rules.flatMap((rule) => /^-A (\S+)/.exec(rule)?.[1] ?? []))
  const called = rules.flatMap((rule) => /-[jg] ([A-Z][A-Z0-9-]*[A-Z0-9])$/.exec(rule)?.[1] ?? [])
  const names = [...new Set([...chains, ...called])].filter(
    (name) => !/^(FORWARD|ACCEPT|DROP|REJECT|RETURN)$/.test(name)
  )
  return savedTables(
    ['*filter', `:FORWARD ${policy} [0:0]`, ...names.map((name) => `:${name} - [0:0]`), ...rules, 'COMMIT'].join('\n'),
    4
  )
}

export const verdictOf = ({ verdict }: Pick<ForeignAccept, 'verdict'>): 'accept' | 'return' => verdict ?? 'accept'
