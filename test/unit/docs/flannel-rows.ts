// The rows of docs/flannel.md's tables.

export type FlannelRow = {
  /** The heading above the table. */
  readonly heading: string
  readonly what: string
  readonly how: string
  readonly why: string
}

export function flannelRows(text: string): readonly FlannelRow[] {
  let heading = ''
  return text.split('\n').flatMap((line) => {
    if (line.startsWith('## ')) heading = line.slice(3)
    const [, what, how, why] = /^\| (.+?) \| (.+?) \| (.+) \|$/.exec(line) ?? []
    const isRow = what !== undefined && how !== undefined && why !== undefined && how !== 'Weft' && !/^-+$/.test(how)
    return isRow ? [{ heading, what, how, why }] : []
  })
}
