// `weftctl check`: tries the paths between a sample of the nodes, and prints the matrix of what answered.
import { readAnswer } from '../api/answers.ts'
import type { CellAnswer, CheckAnswer, RowAnswer } from '../api/path-answers.ts'
import { columns } from './columns.ts'
import type { Command } from './command.ts'

export const check: Command = {
  about:
    'try the path from this node to every other node, or to a sample of 16, with one ICMP echo request each, and print the matrix; NODES limits it to these (names or addresses, separated by commas). "kubectl weft check" tries from every node of the sample',
  exits: '0 all of them answered, 1 not all',
  operands: [{ name: 'NODES', isOptional: true }],
  read(answer) {
    const found = readAnswer<CheckAnswer>(answer, {
      node: 'string',
      key: 'string',
      nodes: 'number',
      sampled: 'number',
      rows: 'array'
    })
    const unasked = found.unasked ?? []
    const cells = found.rows.flatMap((row) => row.cells)
    const isWhole = unasked.length === 0 && found.rows.every(isWholeRow)
    const lines = [
      sampleText(found),
      ...(cells.length === 0 ? [] : ['', matrix(found.rows).trimEnd()]),
      ...faultLines(found.rows),
      ...unasked.map(({ node, reason }) => `${node} was not asked: ${reason}`)
    ]
    return { text: `${lines.join('\n')}\n`, exit: isWhole ? 0 : 1 }
  }
}

/** Of what was only reported, what is not known is no fault: that node has just not asked yet. */
const isWholeRow = ({ source, cells }: RowAnswer): boolean =>
  cells.every(({ state }) => state === 'whole' || (source === 'reported' && state === 'unknown'))

function sampleText({ node, nodes, sampled, rows }: CheckAnswer): string {
  if (nodes === 0) return `${node}: there is no other node`
  const tried = rows.filter(({ source }) => source === 'tried').length
  const sample = sampled === nodes ? `all ${nodes}` : `a sample of ${sampled} of ${nodes}`
  return tried > 1
    ? `tried from ${tried} nodes, each to the others (${sampled} of ${nodes + 1})`
    : `tried from ${node} to ${sample} other node${nodes === 1 ? '' : 's'}; "kubectl weft check" tries from every node`
}

const nameOf = ({ node, key }: { readonly node: string; readonly key: string }): string => node || key

const SHOWN = { whole: 'ok', unknown: '?' } as const

/** A row for each node that packets were sent from, a column for each that they were sent to. */
function matrix(rows: readonly RowAnswer[]): string {
  const found = new Map(rows.flatMap(({ cells }) => cells.map((cell) => [cell.key, nameOf(cell)] as const)))
  // In the order of the rows, so that the diagonal is empty.
  const ends = new Map([
    ...rows.flatMap((row) => (found.has(row.key) ? [[row.key, nameOf(row)] as const] : [])),
    ...found
  ])
  const line = (row: RowAnswer) => [
    `${nameOf(row)}${row.source === 'reported' ? ' (reported)' : ''}`,
    ...[...ends.keys()].map((key) => {
      const cell = row.cells.find((each) => each.key === key)
      return cell === undefined ? '' : cellText(cell)
    })
  ]
  return columns([['FROM', ...ends.values()], ...rows.map(line)])
}

const cellText = ({ state, at }: CellAnswer): string => (state === 'wrong' ? (at ?? 'wrong') : SHOWN[state])

/** Each fault with its two nodes. */
function faultLines(rows: readonly RowAnswer[]): readonly string[] {
  const wrong = rows.flatMap((row) =>
    row.cells.flatMap((cell) =>
      cell.state === 'wrong'
        ? [`${nameOf(row)} to ${nameOf(cell)}: ${cell.text ?? cell.at ?? ''}${cureText(cell)}`]
        : []
    )
  )
  return wrong.length === 0 ? [] : ['', ...wrong]
}

const cureText = ({ cure }: CellAnswer): string => (cure === undefined ? '' : `\n  cure: ${cure}`)
