// What a kernel can make or can't, for trials.
import type { FouPort, Link } from './object.ts'

/** It is made once in an empty network namespace that has `lo` only, and is down. */
export type Feature = Link | FouPort
