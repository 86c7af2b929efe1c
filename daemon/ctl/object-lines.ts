// Prints the kernel objects that exist because of a pod or a lease.
import type { ObjectAnswer } from '../api/answers.ts'

const SIGNS = { there: ' ', missing: '+', different: '~' } as const

/** As `weftctl diff`: `+` is missing in the kernel, `~` is different there. */
export const objectLines = (objects: readonly ObjectAnswer[]): readonly string[] =>
  objects.length === 0
    ? ['    nothing']
    : objects.map(
        ({ text, state, instead }) =>
          `  ${SIGNS[state] ?? '?'} ${text}${state === 'missing' ? '   (missing)' : ''}${instead === undefined ? '' : `   (now: ${instead})`}`
      )
