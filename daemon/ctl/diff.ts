// `weftctl diff`: what weftd would change in the kernel now, in the syntax of ip, bridge and nft.
import { type DiffAnswer, readAnswer } from '../api/answers.ts'
import type { Command } from './command.ts'

export const diff: Command = {
  about: 'differences between the kernel and the desired state',
  exits: '0 none, 1 some, 4 not decided yet: weftd waits for the store or the network configuration',
  read(answer) {
    const { changes, waitsFor } = readAnswer<DiffAnswer>(answer, { changes: 'array' })
    if (waitsFor !== undefined) {
      // What would be removed by what is known now is not shown: it is what weftd keeps meanwhile.
      const lines = changes.flatMap((change) => (change.do === 'put' ? [`${change.text}\n`] : []))
      const head = `not decided: weftd waits for ${waitsFor}; nothing will be removed until then\n`
      return { text: `${head}${lines.join('')}`, exit: 4 }
    }
    if (changes.length === 0) return { text: 'the kernel is in the desired state\n', exit: 0 }
    return { text: changes.map(({ text }) => `${text}\n`).join(''), exit: 1 }
  }
}
