// `weftctl changes`: what other programs changed of Weft's objects in the kernel, who it was, and how long it lasted; and
// what weftd itself changed of a device because of what it measured.
import { type ChangesAnswer, readAnswer } from '../api/answers.ts'
import { columns, shortTime } from './columns.ts'
import type { Command } from './command.ts'

export const changes: Command = {
  about:
    'objects of Weft that other programs changed, by which program, and how weftd undid it, and offloads that weftd itself turned off or on: the last 1,000',
  exits: '0 no other program changed any since weftd started, 1 some did',
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
    return {
      text: `${columns([heading, ...rows])}${notes.length > 0 ? '\n' : ''}${notes.join('')}`,
      exit: changes.every(({ isOwn }) => isOwn) ? 0 : 1
    }
  }
}
