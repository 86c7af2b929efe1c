// `weftctl diff`: what weftd would change in the kernel now, in the syntax of ip, bridge and nft.
import { type DiffAnswer, readAnswer } from '../api/answers.ts'
import type { Command } from './command.ts'

export const diff: Command = {
  about: 'differences between the kernel and the desired state',
  exits: '0 none, 1 some',
  read(answer) {
    const { changes } = readAnswer<DiffAnswer>(answer, { changes: 'array' })
    if (changes.length === 0) return { text: 'the kernel is in the desired state\n', exit: 0 }
    return { text: changes.map(({ text }) => `${text}\n`).join(''), exit: 1 }
  }
}
