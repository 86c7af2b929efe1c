// JSON as a tree that can say what JavaScript values can't: duplicate keys, numbers of any size, text that is no JSON.
// And ways to spoil it.
import type { Random } from './random.ts'

export type Tree =
  | { readonly kind: 'object'; readonly members: readonly (readonly [key: string, value: Tree])[] }
  | { readonly kind: 'list'; readonly items: readonly Tree[] }
  /** Written as it stands: a number, a word, a quoted text, or nonsense. */
  | { readonly kind: 'raw'; readonly text: string }

export const raw = (text: string): Tree => ({ kind: 'raw', text })

export function treeOf(value: unknown): Tree {
  if (Array.isArray(value)) return { kind: 'list', items: value.map(treeOf) }
  if (typeof value === 'object' && value !== null)
    return { kind: 'object', members: Object.entries(value).map(([key, inner]) => [key, treeOf(inner)] as const) }
  return raw(JSON.stringify(value) ?? 'null')
}

export function jsonOf(tree: Tree): string {
  switch (tree.kind) {
    case 'raw':
      return tree.text
    case 'list':
      return `[${tree.items.map(jsonOf).join(',')}]`
    case 'object':
      return `{${tree.members.map(([key, value]) => `${JSON.stringify(key)}:${jsonOf(value)}`).join(',')}}`
  }
}

/** Keys that mean something to JavaScript's objects. */
export const PROTOTYPE_KEYS = ['__proto__', 'constructor', 'prototype', 'toString', 'valueOf', 'hasOwnProperty', 'then']

export const ODD_TEXTS: readonly string[] = [
  '',
  ' ',
  '0',
  '-1',
  'null',
  'true',
  '.',
  '..',
  '../../x',
  'a/b',
  'ä',
  '\u0000',
  'a\u0000b',
  '\n',
  '\r\n',
  '\ud800',
  '\u202e',
  '🐙',
  '\ufeff',
  "'",
  '"; drop',
  '$(false)',
  '%n',
  '10.1.2.3',
  '10.1.2.3/24',
  '10.1.2.0/33',
  '256.1.1.1',
  '::',
  'fe80::1%eth0',
  'fd00::/64',
  'ff:ff:ff:ff:ff:ff',
  '0a:58:00:00:00:00',
  '127.0.0.1',
  '1.1.0',
  // What containerd takes for success when a DEL says it, and a letter whose lower case is longer.
  'not found',
  'İ No such file or directory',
  'x'.repeat(16),
  'x'.repeat(300)
]

const ODD_RAWS: readonly string[] = [
  'null',
  'true',
  'false',
  '0',
  '-0',
  '-1',
  '1.5',
  '65536',
  '4294967296',
  '9007199254740993',
  '9223372036854775808',
  '1e308',
  '1e999',
  `1${'0'.repeat(400)}`,
  '[]',
  '{}',
  '[[]]',
  '{"__proto__":{"polluted":true}}'
]

const nested = (random: Random): Tree => {
  const depth = random.pick([2, 20, 200, 2_000])
  const [open, close] = random.chance(0.5) ? ['[', ']'] : ['{"a":', '}']
  return raw(`${open.repeat(depth)}0${close.repeat(depth)}`)
}

/** Any value, seldom a reasonable one. */
export function oddTree(random: Random): Tree {
  const which = random.below(20)
  if (which < 9) return raw(random.pick(ODD_RAWS))
  if (which < 17) return raw(JSON.stringify(random.pick(ODD_TEXTS)))
  if (which === 17) return nested(random)
  if (which === 18) return { kind: 'list', items: Array.from({ length: random.between(1, 5) }, () => oddTree(random)) }
  return {
    kind: 'object',
    members: Array.from({ length: random.between(1, 4) }, () => [oddKey(random), oddTree(random)] as const)
  }
}

const oddKey = (random: Random): string =>
  random.chance(0.4) ? random.pick(PROTOTYPE_KEYS) : random.pick(ODD_TEXTS).slice(0, 40)

/** The same letters in other cases. */
export const recased = (random: Random, text: string): string =>
  Array.from(text, (letter) => (random.chance(0.5) ? letter.toUpperCase() : letter.toLowerCase())).join('')

/**
 * Every key in another letter case: to Go's decoder, and so to us, the same document. `keep`: keys that are names of
 * the user's own.
 */
export function recasedTree(random: Random, tree: Tree, keep: readonly string[] = []): Tree {
  if (tree.kind === 'raw') return tree
  if (tree.kind === 'list') return { kind: 'list', items: tree.items.map((item) => recasedTree(random, item, keep)) }
  return {
    kind: 'object',
    members: tree.members.map(([key, value]) =>
      keep.includes(key) ? ([key, value] as const) : ([recased(random, key), recasedTree(random, value, keep)] as const)
    )
  }
}

/** The tree with one place changed: a node on the way down is chosen, the deeper the likelier. */
export function spoiled(random: Random, tree: Tree): Tree {
  const children = tree.kind === 'object' ? tree.members.length : tree.kind === 'list' ? tree.items.length : 0
  if (children === 0 || random.chance(0.15)) return spoiledHere(random, tree)
  const at = random.below(children)
  if (tree.kind === 'list')
    return { kind: 'list', items: tree.items.map((item, index) => (index === at ? spoiled(random, item) : item)) }
  if (tree.kind === 'raw') return tree
  if (random.chance(0.35)) return spoiledMembers(random, tree, at)
  return {
    kind: 'object',
    members: tree.members.map(([key, value], index) => [key, index === at ? spoiled(random, value) : value] as const)
  }
}

function spoiledMembers(random: Random, tree: Extract<Tree, { kind: 'object' }>, at: number): Tree {
  const { members } = tree
  const [key, value] = members[at] ?? ['', raw('null')]
  const with_ = (...changed: readonly (readonly [string, Tree])[]): Tree => ({
    kind: 'object',
    members: [...members.slice(0, at), ...changed, ...members.slice(at + 1)]
  })
  switch (random.below(7)) {
    case 0:
      return with_()
    case 1:
      return with_([key, value], [key, oddTree(random)])
    case 2:
      return with_([key, oddTree(random)], [recased(random, key), value])
    case 3:
      return with_([recased(random, key), value])
    case 4:
      return with_([oddKey(random), value])
    case 5:
      return with_([key, value], [oddKey(random), oddTree(random)])
    default:
      return with_([key, random.pick(members)[1]])
  }
}

function spoiledHere(random: Random, tree: Tree): Tree {
  switch (random.below(6)) {
    case 0:
      return { kind: 'list', items: [tree] }
    case 1:
      return { kind: 'object', members: [[oddKey(random), tree]] }
    case 2:
      return tree.kind === 'list' ? { kind: 'list', items: [...tree.items, ...tree.items] } : oddTree(random)
    case 3:
      return tree.kind === 'raw' && tree.text.startsWith('"')
        ? raw(JSON.stringify(spoiledText(random, textIn(tree.text))))
        : oddTree(random)
    default:
      return oddTree(random)
  }
}

function textIn(quoted: string): string {
  try {
    return String(JSON.parse(quoted))
  } catch {
    return quoted
  }
}

/** The text with a character or a stretch changed, doubled or lost. */
export function spoiledText(random: Random, text: string): string {
  const [from, to] = [random.below(text.length + 1), random.below(text.length + 1)].sort((a, b) => a - b) as [
    number,
    number
  ]
  switch (random.below(6)) {
    case 0:
      return text.slice(0, to)
    case 1:
      return text.slice(0, from) + text.slice(to)
    case 2:
      return text.slice(0, from) + random.pick(ODD_TEXTS) + text.slice(from)
    case 3:
      return text.slice(0, to) + text.slice(from)
    case 4:
      return text.slice(0, from) + String.fromCharCode(random.below(0x3000)) + text.slice(from + 1)
    default:
      return recased(random, text)
  }
}

/** The document with some places spoiled, and now and then as text too. */
export function spoiledJson(random: Random, tree: Tree): string {
  let spoilt = tree
  for (let times = random.pick([1, 1, 1, 2, 3, 6]); times > 0; times--) spoilt = spoiled(random, spoilt)
  const text = jsonOf(spoilt)
  return random.chance(0.08) ? spoiledText(random, text) : text
}
