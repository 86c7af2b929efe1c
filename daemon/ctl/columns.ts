// Prints tables: columns as wide as their widest cell, two spaces between.

/** The first row is the heading. Empty cells print as `-`, so that columns can be counted (awk). */
export function columns(rows: readonly (readonly string[])[]): string {
  const shown = rows.map((row) => row.map((cell) => (cell === '' ? '-' : cell)))
  const widths = (shown[0] ?? []).map((_, at) => Math.max(...shown.map((row) => row[at]?.length ?? 0)))
  return shown
    .map(
      (row) => `${row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join('  ')}\n`
    )
    .join('')
}

/** A time of an answer without its fraction: `2026-01-31T12:00:00Z`. */
export const shortTime = (iso: string): string => iso.replace(/\.\d+Z$/, 'Z')
