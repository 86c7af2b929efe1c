// Draws the page in the browser: asks weftctl for texts, and puts them where they belong.
import { at, fill, make, note, pill, textAndCure, time, update } from './elements.js'
import { drawMatrix } from './grid.js'

/** @import { BrokenView, ConditionView, HopView, Mark, NodeView, PathView, View } from './view-types.ts' */

/** Milliseconds from one answer to the next question. */
const PAUSE = 5_000

/** @param {BrokenView} broken */
const brokenItem = ({ fromName, toName, mark, way, text, cure, since }) =>
  make(
    'li',
    mark.tone,
    make(
      'p',
      '',
      make('span', 'what', `${fromName} to ${toName}`),
      ' ',
      pill(mark),
      make('span', 'more', ` ${way}, since `),
      time(since)
    ),
    ...textAndCure(text, cure)
  )

/** @param {ConditionView} condition */
const conditionItem = ({ mark, code, text, cure, since }) =>
  make(
    'li',
    mark.tone,
    ...(code === ''
      ? []
      : [make('p', '', pill(mark), ' ', make('span', 'code', code), make('span', 'more', ' since '), time(since))]),
    ...textAndCure(text, cure)
  )

/** On one line where nothing is wrong. @param {HopView} hop */
const hopItem = ({ mark, name, text, cure }) =>
  make(
    'li',
    mark.tone,
    make('p', '', pill(mark), ' ', make('span', 'what', name), ...(mark.tone === 'bad' ? [] : [` ${text}`])),
    ...textAndCure(mark.tone === 'bad' ? text : '', cure)
  )

/** @param {string} text */
const value = (text) => (text === '' ? make('td', 'absent', 'not known') : make('td', 'value', text))

/** @param {NodeView} node */
function nodeBody(node) {
  const heading = make('th', '', node.name)
  heading.scope = 'row'
  const { addresses, subnet, backend, mtu, pods, leaseEnds, conditions } = node
  const lease = leaseEnds === '' ? value('') : make('td', 'when', time(leaseEnds))
  const cells = [...[addresses, subnet, backend, mtu, pods].map(value), lease]
  const row = make(
    'tr',
    conditions.length > 0 ? 'has-conditions' : '',
    heading,
    make('td', '', pill(node.state)),
    ...cells
  )
  if (conditions.length === 0) return make('tbody', '', row)
  const cell = make('td', '', make('ul', 'findings', ...conditions.map(conditionItem)))
  cell.colSpan = 8
  return make('tbody', '', row, make('tr', 'conditions', cell))
}

/** @param {readonly NodeView[]} rows */
function drawNodes(rows) {
  const table = /** @type {HTMLTableElement} */ (at('nodes'))
  for (const body of [...table.tBodies]) body.remove()
  table.append(...rows.map(nodeBody))
}

/** @param {View['changes']['rows']} rows */
function drawChanges(rows) {
  const table = /** @type {HTMLTableElement} */ (at('changes'))
  for (const body of [...table.tBodies]) body.remove()
  const lines = rows.map(({ at: when, node, culprit, text, took }) =>
    make(
      'tr',
      '',
      make('td', 'when', time(when)),
      make('td', '', node),
      make('td', '', culprit),
      make('td', 'text', text),
      make('td', 'when', took)
    )
  )
  table.append(make('tbody', '', ...lines))
  at('changes-scroll').hidden = rows.length === 0
}

/** @param {Mark} mark */
function drawSummary({ sign, word, tone }) {
  const summary = at('summary')
  summary.className = tone
  const signs = summary.querySelector('.sign')
  const words = summary.querySelector('.word')
  if (signs !== null) signs.textContent = sign
  if (words !== null) words.textContent = word
}

/** @param {View} view */
function draw(view) {
  document.title = view.title
  update(at('summary'), view.summary, drawSummary)
  at('as-of').replaceChildren('as of ', time(view.at))
  update(at('notes'), view.notes, (notes) =>
    fill(
      'notes',
      notes.map((text) => make('li', '', text))
    )
  )
  const { legend, broken, more } = view.matrix
  const states = Object.values(legend).filter(({ count }) => count > 0)
  update(at('legend'), states, () =>
    fill(
      'legend',
      states.map((mark) => make('li', '', pill({ ...mark, word: `${mark.count.toLocaleString('en')} ${mark.word}` })))
    )
  )
  note('matrix-note', view.matrix.note)
  drawMatrix(view.matrix)
  update(at('broken'), broken, () => fill('broken', broken.map(brokenItem)))
  note('broken-more', more > 0 ? `${more.toLocaleString('en')} more broken paths are in the matrix.` : '')
  update(at('nodes'), view.nodes.rows, drawNodes)
  note('nodes-note', view.nodes.note)
  const { culprits, rows } = view.changes
  update(at('culprits'), culprits, () =>
    fill(
      'culprits',
      culprits.map(({ name, count }) => make('li', '', make('span', 'mark', `${name}: ${count.toLocaleString('en')}`)))
    )
  )
  update(at('changes'), rows, drawChanges)
  note('changes-note', view.changes.note)
  update(at('pods'), view.pods, (pods) => at('pods').replaceChildren(...pods.map((pod) => new Option(pod))))
}

/** @param {string} what @returns {Promise<any>} */
async function ask(what) {
  const response = await fetch(what)
  if (!response.ok) throw new Error(await response.text())
  return response.json()
}

/** @param {unknown} error */
const reasonOf = (error) => (error instanceof Error ? error.message : String(error))

let isPaused = false
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

async function refresh() {
  clearTimeout(timer)
  try {
    draw(await ask('view'))
  } catch (error) {
    const gone = error instanceof TypeError
    const word = gone ? 'weftctl page has ended; start it again and open the URL that it prints' : reasonOf(error)
    document.title = '? no answer – Weft'
    update(at('summary'), { sign: '?', word, tone: /** @type {const} */ ('unknown') }, drawSummary)
  }
  if (!isPaused) timer = setTimeout(refresh, PAUSE)
}

at('pause').addEventListener('click', () => {
  isPaused = !isPaused
  at('pause').ariaPressed = String(isPaused)
  if (isPaused) clearTimeout(timer)
  else void refresh()
})

/** @param {PathView} path */
function drawPath({ summary, parts }) {
  const shownParts = parts.flatMap(({ heading, hops, lines }) => [
    make('h3', '', heading),
    hops.length > 0
      ? make('ol', 'findings', ...hops.map(hopItem))
      : make('ul', 'lines', ...lines.map((line) => make('li', '', line)))
  ])
  fill('path-answer', [make('p', '', pill(summary)), ...shownParts])
}

at('path').addEventListener('submit', async (event) => {
  event.preventDefault()
  const fields = new FormData(/** @type {HTMLFormElement} */ (event.target))
  const query = new URLSearchParams({ from: String(fields.get('from')).trim(), to: String(fields.get('to')).trim() })
  fill('path-answer', ['Asking …'])
  try {
    drawPath(await ask(`path?${query}`))
  } catch (error) {
    fill('path-answer', [reasonOf(error)])
  }
})

void refresh()
