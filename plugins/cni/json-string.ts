// Where a string of a JSON document ends, for those that read its text without building the values.

/** The index of the closing quote of the string that begins at `from`; without one, the length of the document. */
export function endOfString(json: string, from: number): number {
  for (let at = from + 1; at < json.length; at++) {
    if (json[at] === '\\') at++
    else if (json[at] === '"') return at
  }
  return json.length
}
