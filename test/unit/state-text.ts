// A whole state as text, one sorted line per object, for comparison.
import type { State } from '../../daemon/state/object.ts'
import { textOf } from '../../daemon/state/text.ts'

export const stateText = (state: State): string => [...state.values()].map(textOf).sort().join('\n')
