// `weftctl diff`: what weftd would change in the kernel now, in the words of ip, bridge and nft, and who asks for it.
import { type DiffAnswer, readAnswer } from '../api/answers.ts'
import type { Command } from './command.ts'

export const diff: Command = {
  about: 'what differs between the kernel and what is wanted',
  exits: '0 nothing, 1 something',
  read(answer) {
    const { changes } = readAnswer<DiffAnswer>(answer, { changes: 'array' })
    if (changes.length === 0)
      return { text: 'the kernel holds all that is wanted, and nothing of ours besides\n', exit: 0 }
    return { text: changes.map(({ text }) => `${text}\n`).join(''), exit: 1 }
  }
}
