// What rules of other programs refer to and only the kernel knows: named sets, and the queues at which programs listen.
import type { Prefix } from '../../ipam/address.ts'
import type { ForeignBranch, ForeignCondition, ForeignTable, ForeignVerdict } from './foreign-chain.ts'

export type ForeignFacts = {
  /** The numbers of the queues (nfnetlink_queue) at which a program listens. */
  readonly queues: ReadonlySet<number>
  /** By set, as `ip filter blocked`: the pod networks that it holds as a whole. */
  readonly sets: ReadonlyMap<string, readonly Prefix[]>
}

/** What of it is needed to judge the tables. */
export type Needed = {
  readonly queues: boolean
  readonly sets: ReadonlyMap<string, { readonly table: ForeignTable; readonly name: string }>
}

/** Sets that are asked about; what is in more of them is not known. */
const MOST_SETS = 32

export const setKey = ({ family, table }: Pick<ForeignTable, 'family' | 'table'>, name: string): string =>
  `${family} ${table} ${name}`

export function neededFacts(tables: readonly ForeignTable[]): Needed {
  const sets = new Map<string, { readonly table: ForeignTable; readonly name: string }>()
  let queues = false
  for (const table of tables) {
    for (const { conditions, verdict } of branchesOf(table)) {
      queues ||= isQueue(verdict)
      for (const condition of conditions)
        if (condition.kind === 'deliberate' && condition.set && sets.size < MOST_SETS)
          sets.set(setKey(table, condition.set.name), { table, name: condition.set.name })
    }
  }
  return { queues, sets }
}

/** The tables with what is known; rules that nothing of it is about stay as they are. */
export const withFacts = (tables: readonly ForeignTable[], facts: ForeignFacts): readonly ForeignTable[] =>
  tables.map((table) => (branchesOf(table).some(isAbout) ? filled(table, facts) : table))

const branchesOf = ({ chains }: ForeignTable): readonly ForeignBranch[] =>
  [...chains.values()].flatMap(({ rules }) => rules.flatMap(({ branches }) => branches))

const isQueue = (verdict: ForeignVerdict): boolean => verdict.kind === 'queue' && verdict.numbers !== undefined

const hasSet = (condition: ForeignCondition): boolean => condition.kind === 'deliberate' && condition.set !== undefined

const isAbout = ({ conditions, verdict }: ForeignBranch): boolean => isQueue(verdict) || conditions.some(hasSet)

function filled(table: ForeignTable, facts: ForeignFacts): ForeignTable {
  const conditionOf = (condition: ForeignCondition): ForeignCondition => {
    if (condition.kind !== 'deliberate' || condition.set === undefined) return condition
    const holds = facts.sets.get(setKey(table, condition.set.name))
    return holds === undefined ? condition : { kind: 'deliberate', set: { ...condition.set, holds } }
  }
  const branchOf = (branch: ForeignBranch): ForeignBranch =>
    isAbout(branch)
      ? { conditions: branch.conditions.map(conditionOf), verdict: withListeners(branch.verdict, facts.queues) }
      : branch
  const chains = [...table.chains].map(([name, chain]) => {
    const rules = chain.rules.map((rule) =>
      rule.branches.some(isAbout) ? { ...rule, branches: rule.branches.map(branchOf) } : rule
    )
    return [name, { ...chain, rules }] as const
  })
  return { ...table, chains: new Map(chains) }
}

/** Packets are spread over the queues, so that one without a program drops some of them; all of them drop all. */
function withListeners(verdict: ForeignVerdict, queues: ReadonlySet<number>): ForeignVerdict {
  if (verdict.kind !== 'queue' || verdict.numbers === undefined) return verdict
  const [first, last] = verdict.numbers
  for (const number of queues) if (number >= first && number <= last) return verdict
  return { ...verdict, hasNoListener: true }
}
