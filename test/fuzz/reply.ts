// Hostile replies of a daemon: another program's, of older and newer versions, malformed.
import type { Random } from './random.ts'
import { jsonOf, oddTree, spoiledJson, spoiledText, treeOf } from './tree.ts'

const finished = (random: Random) => ({
  v: 1,
  exit: random.pick([0, 0, 1, 255]),
  stdout: random.pick(['', 'passed on', 'passed on\nin lines\n']),
  stderr: random.pick(['', 'a note\n'])
})

const run = (random: Random) => ({
  v: 1,
  run: {
    id: 'a',
    type: random.pick(['none-of-this-name', 'true', 'false']),
    path: random.pick([[], ['/nowhere'], ['/bin', '/usr/bin']]),
    env: { CNI_COMMAND: 'ADD' },
    stdin: '{}',
    deadlineMs: random.pick([1, 1_000])
  }
})

/** One line, without its newline. */
export function hostileReply(random: Random): string {
  const right = treeOf(random.chance(0.7) ? finished(random) : run(random))
  const which = random.below(12)
  if (which < 2) return jsonOf(right)
  if (which === 2) return jsonOf(oddTree(random)).replaceAll('\n', ' ')
  if (which === 3) return spoiledText(random, jsonOf(right)).replaceAll('\n', ' ')
  return spoiledJson(random, right).replaceAll('\n', ' ')
}
