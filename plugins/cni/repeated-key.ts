// Finds a key that is written twice in one object of a JSON document: JSON.parse keeps the last one without a word.
import { endOfString } from './json-string.ts'

type Level = {
  readonly isObject: boolean
  readonly seen: { [key: string]: true } | undefined
  expectsKey: boolean
  key: string
}

/**
 * The first key that an object at one of these paths (keys in lower case, joined by ".") has twice; `undefined`: none.
 * `json` must be valid. Without recursion, since documents may be nested deeper than the stack.
 */
export function repeatedKey(json: string, paths: readonly string[]): string | undefined {
  const deepest = Math.max(...paths.map((path) => path.split('.').length))
  const levels: Level[] = []
  for (let at = 0; at < json.length; at++) {
    const level = levels.at(-1)
    switch (json[at]) {
      case '{': {
        const isWatched = levels.length <= deepest && paths.includes(levels.map(({ key }) => key).join('.'))
        levels.push({ isObject: true, seen: isWatched ? Object.create(null) : undefined, expectsKey: true, key: '' })
        break
      }
      case '[':
        levels.push({ isObject: false, seen: undefined, expectsKey: false, key: '[]' })
        break
      case '}':
      case ']':
        levels.pop()
        break
      case ',':
        if (level !== undefined) level.expectsKey = level.isObject
        break
      case '"': {
        const end = endOfString(json, at)
        const key = level?.expectsKey ? String(JSON.parse(json.slice(at, end + 1))) : undefined
        if (level !== undefined && key !== undefined && isRepeated(level, key)) return key
        at = end
        break
      }
    }
  }
  return undefined
}

/** Notes the key as the one whose value follows. */
function isRepeated(level: Level, key: string): boolean {
  const isSecond = level.seen?.[key] === true
  if (level.seen !== undefined) level.seen[key] = true
  level.key = key.toLowerCase()
  level.expectsKey = false
  return isSecond
}
