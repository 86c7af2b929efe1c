// Ranges of keys in etcd: all under a prefix, and what comes after a key.

/**
 * The end of the range of all keys with this prefix: the prefix with its last character, one byte of UTF-8, replaced by
 * the next.
 */
export const rangeEnd = (prefix: string): string =>
  prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)

/**
 * The key from which a listing under the prefix goes on after this one; `undefined`: none of ours comes later. A key that
 * is not UTF-8 was read with U+FFFD for its octets, and would lead back to itself or far ahead: what follows it begins like
 * it with octets above ASCII, and no key of ours does.
 */
export function keyAfter(key: string, prefix: string): string | undefined {
  if (!key.includes('\uFFFD')) return `${key}\0`
  const at = key.search(/[\u0080-\uFFFF]/)
  return at <= prefix.length ? undefined : rangeEnd(key.slice(0, at))
}
