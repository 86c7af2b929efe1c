// `weftctl changes`: what other programs changed of Weft's objects in the kernel, who it was, and how long it lasted.
import { type ChangesAnswer, readAnswer } from '../api/answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

export const changes: Command = {
  about: 'objects of Weft that other programs changed, by which program, and how weftd undid it: the last 1,000',
  exits: '0 none since weftd started, 1 some',
  read(answer) {
    const { changes } = readAnswer<ChangesAnswer>(answer, { changes: 'array' })
    if (changes.length === 0) return { text: 'no other program has changed anything since weftd started\n', exit: 0 }
    const heading = ['TIME', 'BY', 'TOOK', 'WHAT-WEFTD-DID']
    const rows = changes.map(({ at, text, culprit, tookMs }) => [
      shortTime(at),
      culprit ?? 'unknown',
      tookMs === undefined ? '' : `${tookMs}ms`,
      text
    ])
    const reasons = new Set(changes.flatMap(({ unnamed }) => (unnamed === undefined ? [] : [unnamed])))
    const notes = [...reasons].map((reason) => `unknown: ${reason}\n`)
    return { text: `${columns([heading, ...rows])}${notes.length > 0 ? '\n' : ''}${notes.join('')}`, exit: 1 }
  }
}
