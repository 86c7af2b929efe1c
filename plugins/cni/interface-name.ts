// The rules for interface names: the kernel's, and those against patterns. Without RegExp, which the executable's
// engine lacks.

/**
 * The rule that `name` breaks, to end a sentence with; `undefined` for a valid name (dev_valid_name in net/core/dev.c;
 * IFNAMSIZ is 16 with the final zero).
 */
export function brokenNameRule(name: string): string | undefined {
  if (name === '') return 'must not be empty'
  if (byteLength(name) > 15) return 'must not be longer than 15 bytes'
  if (name === '.' || name === '..') return 'must not be "." or ".."'
  for (const character of name) {
    if (character === '/' || character === ':') return 'must have no "/" and no ":"'
    // A pattern to dev_alloc_name(): "eth%d" would become the first free name of that form.
    if (character === '%') return 'must have no "%"'
    if (character === '\u0000') return 'must have no zero byte'
    if (character.trim() === '' || character === '\u0085') return 'must have no white space'
  }
  return undefined
}

/** Bytes of the text in UTF-8. */
function byteLength(value: string): number {
  let bytes = 0
  for (const character of value) {
    const point = character.codePointAt(0) ?? 0
    bytes += point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x1_0000 ? 3 : 4
  }
  return bytes
}
