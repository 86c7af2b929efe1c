// Waiting in unit tests: as in the lab, with looks so close that what lasts for a moment only is seen.
import { until as untilThere } from '../lab/run.ts'

/** `what` is awaited, for the error at the deadline. */
export const until = <T>(condition: () => T, what: string) => untilThere(condition, { what, everyMs: 2 })
