// The matrix of paths: a grid in which Tab reaches one cell and arrow keys the others.
import { at, make, update } from './elements.js'

/** @import { MatrixView, NameView } from './view-types.ts' */

/** From so many columns on their names are vertical; from more on cells are only as large as a sign. */
const MANY = 9
const DENSE = 33

/** @type {MatrixView | undefined} */
let matrix
/** Keys of the row and column of the cell that Tab reaches. */
let current = { row: '', column: '' }

/** @param {number} row @param {number} column */
const cellAt = (row, column) => /** @type {HTMLTableElement} */ (at('matrix')).tBodies[0]?.rows[row]?.cells[column + 1]

const currentPlace = () => ({
  row: Math.max(0, matrix?.rows.findIndex(({ key }) => key === current.row) ?? 0),
  column: Math.max(0, matrix?.columns.findIndex(({ key }) => key === current.column) ?? 0)
})

/** @param {number} micros */
const milliseconds = (micros) => (micros / 1000).toFixed(micros < 10_000 ? 1 : 0)

/** What a cell says in full. @param {MatrixView} view @param {number} row @param {number} column */
function cellText({ rows, columns, legend }, row, column) {
  const from = rows[row]
  const to = columns[column]
  if (from === undefined || to === undefined) return ''
  if (from.key === to.key) return `${from.name}: the node itself`
  const trip = from.roundTrips[column] ?? null
  const word = legend[from.states.charAt(column)]?.word ?? ''
  return `${from.name} to ${to.name}: ${word}${trip === null ? '' : `, ${word === 'whole' ? '' : 'last '}round trip ${milliseconds(trip)} ms`}`
}

/** What a cell shows: a round trip where there is room. @param {MatrixView} view @param {number} row @param {number} column */
function lookOf({ rows, columns, legend }, row, column) {
  const from = rows[row]
  const mark = legend[from?.states.charAt(column) ?? '']
  if (from === undefined || mark === undefined) return { text: '', tone: '' }
  if (from.key === columns[column]?.key) return { text: mark.sign, tone: 'self' }
  if (mark.tone !== 'good') return { text: mark.sign, tone: mark.tone }
  // The only state without a sign: 40,000 texts would take most of the time, and what is broken would stand out less.
  if (columns.length >= DENSE) return { text: '', tone: 'good' }
  const trip = from.roundTrips[column] ?? null
  return { text: trip === null ? mark.sign : milliseconds(trip), tone: 'good' }
}

/** @param {MatrixView} view */
export function drawMatrix(view) {
  const table = /** @type {HTMLTableElement} */ (at('matrix'))
  const keys = (/** @type {readonly NameView[]} */ names) => names.map(({ key, name }) => [key, name])
  const hadFocus = table.contains(document.activeElement)
  matrix = view
  const [worst] = view.broken
  if (current.row === '' && worst !== undefined) current = { row: worst.from, column: worst.to }
  update(table, [keys(view.rows), keys(view.columns)], () => drawFrame(table, view))
  for (const row of view.rows.keys()) {
    for (const column of view.columns.keys()) drawCell(view, row, column)
  }
  const { row, column } = currentPlace()
  const cell = cellAt(row, column)
  if (cell !== undefined) cell.tabIndex = 0
  if (hadFocus && document.activeElement !== cell) cell?.focus({ preventScroll: true })
  for (const id of ['matrix-scroll', 'matrix-help', 'cell']) at(id).hidden = view.rows.length === 0
  showCell(row, column)
}

/** @param {MatrixView} view @param {number} row @param {number} column */
function drawCell(view, row, column) {
  const cell = cellAt(row, column)
  if (cell === undefined) return
  const { text, tone } = lookOf(view, row, column)
  if (cell.textContent !== text) cell.textContent = text
  if (cell.className !== tone) cell.className = tone
  const label = cellText(view, row, column)
  if (cell.ariaLabel !== label) cell.ariaLabel = label
}

/** Headers, and cells that are still empty. @param {HTMLTableElement} table @param {MatrixView} view */
function drawFrame(table, { rows, columns }) {
  table.className = columns.length >= DENSE ? 'grid many dense' : columns.length >= MANY ? 'grid many' : 'grid'
  const inside = columns.length >= DENSE ? 'an empty cell is a whole path' : 'numbers are round trips in milliseconds'
  at('matrix-help').textContent =
    `A row is the node that sends, a column the node that answers; ${inside}. Arrow keys move from cell to cell.`
  const header = make('tr', '', make('td', ''))
  for (const { name } of columns) {
    const cell = make('th', '', make('span', '', name))
    cell.scope = 'col'
    header.append(cell)
  }
  const body = make('tbody', '')
  for (const { name } of rows) {
    const heading = make('th', '', name)
    heading.scope = 'row'
    const row = make('tr', '', heading)
    for (let column = 0; column < columns.length; column++) row.insertCell().tabIndex = -1
    body.append(row)
  }
  table.replaceChildren(make('thead', '', header), body)
}

/** @param {number} row @param {number} column */
function showCell(row, column) {
  if (matrix === undefined) return
  const text = cellText(matrix, row, column)
  if (at('cell').textContent !== text) at('cell').textContent = text
}

/** @param {number} row @param {number} column */
function moveTo(row, column) {
  if (matrix === undefined) return
  const before = currentPlace()
  const next = cellAt(row, column)
  if (next === undefined) return
  const old = cellAt(before.row, before.column)
  if (old !== undefined) old.tabIndex = -1
  current = { row: matrix.rows[row]?.key ?? '', column: matrix.columns[column]?.key ?? '' }
  next.tabIndex = 0
  if (document.activeElement !== next) next.focus()
  showCell(row, column)
}

/** @param {EventTarget | null} target */
function placeOf(target) {
  const cell = target instanceof Element ? target.closest('#matrix tbody td') : null
  if (!(cell instanceof HTMLTableCellElement)) return undefined
  return { row: /** @type {HTMLTableRowElement} */ (cell.parentElement).sectionRowIndex, column: cell.cellIndex - 1 }
}

at('matrix').addEventListener('keydown', (event) => {
  const place = placeOf(event.target)
  if (place === undefined || matrix === undefined || event.altKey || event.metaKey) return
  const { row, column } = place
  const [lastRow, lastColumn] = [matrix.rows.length - 1, matrix.columns.length - 1]
  const end = event.ctrlKey
  /** @type {Readonly<Record<string, readonly [number, number]>>} */
  const moves = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    Home: [end ? 0 : row, 0],
    End: [end ? lastRow : row, lastColumn],
    PageUp: [Math.max(0, row - 10), column],
    PageDown: [Math.min(lastRow, row + 10), column]
  }
  const move = moves[event.key]
  if (move === undefined) return
  event.preventDefault()
  if (move[1] >= 0) moveTo(...move)
})
at('matrix').addEventListener('focusin', ({ target }) => {
  const place = placeOf(target)
  if (place !== undefined) moveTo(place.row, place.column)
})
at('matrix').addEventListener('mouseover', ({ target }) => {
  const place = placeOf(target)
  if (place !== undefined) showCell(place.row, place.column)
})
at('matrix').addEventListener('mouseleave', () => {
  const { row, column } = currentPlace()
  showCell(row, column)
})
