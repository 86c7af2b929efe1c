// Translates changes of firewall objects into nft commands, and libnftables' errors back to those changes.
import type { Change } from '../../state/difference.ts'
import type { ForeignTable } from '../../state/foreign-chain.ts'
import type { AdminCall, NftChain, NftElement, NftSet } from '../../state/object.ts'
import { COMMENT } from './parse-own-tables.ts'
import type { NftComplaint } from './session.ts'

/** A change with its commands; without any there is nothing to do. */
export type Step = { readonly change: Change; readonly commands: readonly string[] }

/**
 * The commands of one change. `foreign`: other programs' tables as they are now, for calls of an administrator's chain.
 * Errors: an Error for a kind that nft's commands are not for.
 */
export function commandsFor(change: Change, foreign: readonly ForeignTable[]): readonly string[] {
  const { object } = change
  switch (object.kind) {
    case 'nft-chain':
      return change.do === 'put' ? putChain(object, change.instead) : removeChain(object)
    case 'nft-set':
      return change.do === 'put'
        ? [addTable(object), `add ${object.form} ${named(object, object.set)} ${braces(object.declaration)}`]
        : removeSet(object)
    case 'nft-element':
      return change.do === 'put' ? putElement(object, change.instead !== undefined) : [removeElement(object)]
    case 'admin-call':
      return adminCallCommands(change.do, object, foreign)
    default:
      throw new Error(`no nft command is for ${object.kind}`)
  }
}

const named = (object: { readonly family: string; readonly table: string }, name: string): string =>
  `${object.family} ${object.table} ${name}`
const addTable = (object: { readonly family: string; readonly table: string }): string =>
  `add table ${object.family} ${object.table}`
const braces = (text: string | undefined): string => (text === undefined ? '' : `{ ${text}; }`)

function putChain(chain: NftChain, instead: Change['instead']): readonly string[] {
  const name = named(chain, chain.chain)
  const rehooked = instead?.kind === 'nft-chain' && instead.hook !== chain.hook
  // A base chain's hook can't be changed, only its policy; nothing jumps to base chains, so they can be deleted.
  const recreate = rehooked ? [`flush chain ${name}`, `delete chain ${name}`] : []
  const hook =
    chain.hook === undefined ? undefined : `${chain.hook}${chain.hook.includes('policy') ? '' : '; policy accept'}`
  return [
    addTable(chain),
    ...recreate,
    `add chain ${name} ${braces(hook)}`,
    `flush chain ${name}`,
    ...(chain.rules ?? []).map((rule, at) => `add rule ${name} ${rule} comment "${COMMENT} ${chain.digests[at]}"`)
  ]
}

// Rules are flushed first, so that chains which jump to each other can be deleted in one transaction (see
// `transaction`).
const removeChain = (chain: NftChain): readonly string[] => [
  `flush chain ${named(chain, chain.chain)}`,
  `delete chain ${named(chain, chain.chain)}`
]

const removeSet = (set: NftSet): readonly string[] => [`delete ${set.form} ${named(set, set.set)}`]

const removeElement = (element: NftElement): string =>
  `delete element ${named(element, element.set)} { ${element.key} }`

/** `instead`: the key exists with another value or comment, which the kernel does not overwrite. */
export function putElement(element: NftElement, instead: boolean): readonly string[] {
  const value = element.value === undefined ? '' : ` : ${element.value}`
  const comment = element.comment === undefined ? '' : ` comment "${element.comment}"`
  const add = `add element ${named(element, element.set)} { ${element.key}${comment}${value} }`
  return instead ? [removeElement(element), add] : [add]
}

/** The administrator's chain stays when it is no longer called: it may have rules. */
function adminCallCommands(verb: Change['do'], call: AdminCall, tables: readonly ForeignTable[]): readonly string[] {
  const table = tables.find((one) => one.family === call.family && one.table === call.table)
  const name = named(call, call.chain)
  const deletions = (table?.chains.get(call.chain)?.rules ?? [])
    .filter(({ oursTo }) => oursTo === call.target)
    .map((rule) => `delete rule ${name} handle ${rule.handle}`)
  if (verb === 'remove') return deletions
  // A policy is named only for a chain that is new: otherwise it would be changed.
  const hook = '{ type filter hook forward priority filter; policy accept; }'
  return [
    addTable(call),
    ...(table?.chains.has(call.chain) ? [] : [`add chain ${name} ${hook}`]),
    `add chain ${named(call, call.target)}`,
    ...deletions,
    `insert rule ${name} counter jump ${call.target} comment "${COMMENT}"`
  ]
}

/** All steps' commands in one line, for a single transaction, and the step of each column. */
export function transaction(steps: readonly Step[]): {
  readonly text: string
  stepAt(column: number): Step | undefined
} {
  const all = steps.flatMap((step) => step.commands.map((command) => ({ step, command })))
  const flushes = all.filter(({ command, step }) => step.change.do === 'remove' && command.startsWith('flush '))
  const ordered = [...flushes, ...all.filter((one) => !flushes.includes(one))]
  const starts: { readonly from: number; readonly step: Step }[] = []
  let text = ''
  for (const { step, command } of ordered) {
    starts.push({ from: text.length, step })
    text += `${command}; `
  }
  return { text, stepAt: (column) => starts.findLast(({ from }) => from <= column)?.step }
}

/** The steps that the errors are about, with their messages, each once. Empty when no error has a column. */
export function refusedSteps(
  complaints: readonly NftComplaint[],
  stepAt: (column: number) => Step | undefined
): ReadonlyMap<Step, string> {
  const found = new Map<Step, string>()
  for (const { words, at } of complaints) {
    const step = at < 0 ? undefined : stepAt(at)
    if (step && !found.has(step)) found.set(step, words)
  }
  return found
}
