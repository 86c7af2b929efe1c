// Makes elements of the page. Texts are set as text only, so nothing from outside becomes markup; what shows a value
// already is left alone, so that a refresh moves neither focus nor scroll positions.

/** @import { Mark } from './view-types.ts' */

/** @type {(id: string) => HTMLElement} */
export const at = (id) => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`no element ${id}`)
  return found
}

/**
 * An element with a class, and texts or elements inside.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {...(string | Node)} inner
 */
export function make(tag, className, ...inner) {
  const element = document.createElement(tag)
  if (className !== '') element.className = className
  element.append(...inner)
  return element
}

/** @param {Mark} mark */
export const pill = ({ sign, word, tone }) => {
  const shown = make('span', 'sign', sign)
  shown.ariaHidden = 'true'
  return make('span', `mark ${tone}`, shown, ` ${word}`)
}

/** @param {string} iso */
export function time(iso) {
  const when = new Date(iso)
  if (Number.isNaN(when.getTime())) return make('span', '', iso)
  const isToday = when.toDateString() === new Date().toDateString()
  const clock = when.toLocaleTimeString('en-GB')
  const element = make('time', '', isToday ? clock : `${when.toLocaleDateString('en-CA')} ${clock}`)
  element.dateTime = iso
  return element
}

/** @type {Map<HTMLElement, string>} What each element shows, as JSON. */
const shown = new Map()

/**
 * Draws the element again only if the value differs from what it shows.
 * @template T
 * @param {HTMLElement} element
 * @param {T} value
 * @param {(value: T) => void} draw
 */
export function update(element, value, draw) {
  const json = JSON.stringify(value)
  if (shown.get(element) === json) return
  shown.set(element, json)
  draw(value)
}

/**
 * A list or a paragraph that is hidden while empty.
 * @param {string} id
 * @param {readonly (string | Node)[]} children
 */
export function fill(id, children) {
  const element = at(id)
  element.replaceChildren(...children)
  element.hidden = children.length === 0
}

/** @param {string} id @param {string} text */
export const note = (id, text) => update(at(id), text, () => fill(id, text === '' ? [] : [text]))

/** @param {string} text @param {string} cure */
export const textAndCure = (text, cure) => [
  ...(text === '' ? [] : [make('p', '', text)]),
  ...(cure === '' ? [] : [make('p', 'cure', cure)])
]
