// Parses one table of iptables-save line by line, in bounded memory.
import type { Family } from '../../../ipam/address.ts'
import type { ForeignTable } from '../../state/foreign-chain.ts'
import { savedTables } from './iptables-save.ts'
import { mostKept, RuleList } from './rule-list.ts'

/** Rules that are parsed at once. */
const LINES = 200

/** `partly`: chains that were not read rule by rule. `undefined`: the output has no table. */
export async function savedTable(
  lines: AsyncIterable<string>,
  family: Family
): Promise<{ readonly table: ForeignTable; readonly partly: readonly string[] } | undefined> {
  let header = ''
  const chains = new Map<string, string>()
  const lists = new Map<string, RuleList>()
  let waiting: string[] = []
  const parse = (): void => {
    const names = new Set(waiting.map((line) => line.split(' ', 2)[1] ?? ''))
    const text = [header, ...[...names].map((name) => chains.get(name) ?? ''), ...waiting].join('\n')
    for (const { name, rules } of savedTables(text, family)[0]?.chains.values() ?? []) {
      const list = lists.get(name) ?? new RuleList(mostKept({ chains: chains.size }))
      lists.set(name, list)
      for (const rule of rules) list.add(rule)
    }
    waiting = []
  }
  for await (const line of lines) {
    if (line.startsWith('*')) header = line
    else if (line.startsWith(':')) chains.set(line.slice(1).split(' ', 1)[0] ?? '', line)
    else if (line.startsWith('-A ') && waiting.push(line) >= LINES) parse()
  }
  parse()
  const [empty] = savedTables([header, ...chains.values()].join('\n'), family)
  if (empty === undefined) return undefined
  const filled = [...empty.chains].map(
    ([name, chain]) => [name, { ...chain, rules: lists.get(name)?.end() ?? [] }] as const
  )
  const partly = [...lists].filter(([, list]) => list.isPartial).map(([name]) => name)
  return { table: { ...empty, chains: new Map(filled) }, partly }
}
