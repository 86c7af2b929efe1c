// Parses what iptables-save prints of Weft's chains, and writes what iptables-restore is to change of them.
import type { Change } from '../../state/difference.ts'
import type { IptablesChain } from '../../state/object.ts'
import { IPTABLES_CHAINS } from '../../state/ownership.ts'
import { COMMENT } from './parse-own-tables.ts'

type Names = { readonly chain: string; readonly from: string }

/** Lines of one table about one chain of Weft: its rules, and the rules of any chain that call it. */
export type SavedOwn = {
  readonly exists: boolean
  readonly rules: readonly string[]
  readonly calls: readonly string[]
}

/** Rules and calls that are kept of each; a chain of Weft has fewer than ten. */
const MOST = 1_000

/** Reads the output of iptables-save line by line and keeps what is about the chain. */
export async function linesOfOurs(lines: AsyncIterable<string>, { chain }: Names): Promise<SavedOwn> {
  let exists = false
  const rules: string[] = []
  const calls: string[] = []
  for await (const line of lines) {
    if (line.startsWith(`:${chain} `)) exists = true
    else if (!line.startsWith('-A ')) continue
    else if (line.startsWith(`-A ${chain} `)) keep(rules, line)
    else if (isCallOf(line, chain)) keep(calls, line)
  }
  return { exists, rules, calls }
}

function keep(list: string[], line: string): void {
  if (list.length < MOST) list.push(line)
}

/** The target is the last option that has a value here: a call has no options of its own. */
const isCallOf = (line: string, chain: string): boolean =>
  line.endsWith(` -j ${chain}`) || line.endsWith(` -g ${chain}`)

/**
 * Not the comment of accepts and of administrators' chains alone, by which those are recognised (parse-own-tables.ts).
 */
const CALL = `${COMMENT} call`
const callRule = ({ chain, from }: Names): string => `-A ${from} -m comment --comment "${CALL}" -j ${chain}`

/** The chain as an object; `undefined` where there is none. */
export function observedChain(
  { tool, family, table }: Pick<IptablesChain, 'tool' | 'family'> & { readonly table: keyof typeof IPTABLES_CHAINS },
  { exists, rules, calls }: SavedOwn
): IptablesChain | undefined {
  if (!exists) return undefined
  const names = IPTABLES_CHAINS[table]
  return {
    ...{ kind: 'iptables-chain', tool, family, table, ...names },
    isCalled: calls.length === 1 && calls[0] === callRule(names),
    digests: rules.map(digestOf)
  }
}

/** What is compared of a rule: the digest in its comment. */
const digestOf = (rule: string, at: number): string =>
  new RegExp(` --comment "${COMMENT} ([0-9a-f]{16})" `).exec(rule)?.[1] ?? `not ours (rule ${at + 1})`

/** Lines for iptables-restore --noflush, which it applies whole or not at all; empty where there is nothing to do. */
export function restoreText(
  { do: verb, object }: Change & { readonly object: IptablesChain },
  saved: SavedOwn
): string {
  const { table, chain, rules = [], digests } = object
  const wanted = callRule(object)
  const isCalled = verb === 'put' && saved.calls.length === 1 && saved.calls[0] === wanted
  const without = isCalled ? [] : saved.calls.map((line) => line.replace(/^-A /, '-D '))
  if (verb === 'remove') {
    if (!saved.exists) return ''
    return lines([`*${table}`, ...without, `-F ${chain}`, `-X ${chain}`, 'COMMIT'])
  }
  // The declaration of a chain that exists flushes it.
  const declared = [`:${chain} - [0:0]`]
  const added = rules.map((rule, at) => `-A ${chain} -m comment --comment "${COMMENT} ${digests[at]}" ${rule}`)
  // Behind the rules of the administrator and of other programs, as flannel's.
  const call = isCalled ? [] : [wanted]
  return lines([`*${table}`, ...declared, ...without, ...added, ...call, 'COMMIT'])
}

const lines = (each: readonly string[]): string => each.map((line) => `${line}\n`).join('')

/** For iptables before 1.6.2. */
export const withoutRandomFully = (text: string): string => text.replaceAll(' --random-fully', '')
