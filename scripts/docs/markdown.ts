// Prints Markdown tables, and puts them between their marks in a page.

/** The first row is the heading. */
export function table(rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map(escaped).join(' | ')} |`
  const [heading = [], ...rest] = rows
  return [line(heading), line(heading.map(() => '---')), ...rest.map(line)].join('\n')
}

/** A bar would end the cell, even in code; outside code, stars and angle brackets would be markup. */
function escaped(cell: string): string {
  if (cell === '') return '–'
  const parts = cell.replaceAll('|', '\\|').replaceAll('\n', ' ').split('`')
  return parts.map((part, at) => (at % 2 === 0 ? part.replaceAll(/[*<>]/g, '\\$&') : part)).join('`')
}

export const code = (text: string): string => `\`${text}\``

const place = (name: string): RegExp =>
  new RegExp(`(<!-- printed by scripts/docs\\.ts: ${name} -->\\n)[\\s\\S]*?(<!-- end -->)`)

/** The page with each block between its marks. Errors: a block without marks, or marks without a block. */
export function withBlocks(path: string, page: string, blocks: Readonly<Record<string, () => string>>): string {
  const marks = [...page.matchAll(/<!-- printed by scripts\/docs\.ts: (\S+) -->/g)].map(([, name = '']) => name)
  const unknown = marks.filter((name) => !Object.hasOwn(blocks, name))
  if (unknown.length > 0) throw new Error(`${path} has marks for ${unknown.join(', ')}, which nothing prints`)
  return Object.entries(blocks).reduce((text, [name, print]) => {
    if (!place(name).test(text)) throw new Error(`${path} has no marks for ${name}`)
    return text.replace(place(name), (_, begin: string, end: string) => `${begin}${print()}\n${end}`)
  }, page)
}
