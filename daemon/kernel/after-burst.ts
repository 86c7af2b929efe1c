// Memory goes back to the system when thousands of leases have been worked off: what V8 took for them it would keep for days.
import { releaseFiles, releaseHeap } from './resident.ts'

/** Leases in one batch from which it is a burst. Fewer leave a megabyte or two. */
const BURST = 500
/** Milliseconds of rest after a burst: the kernel's notifications of it are read by then. */
const REST = 2_000

function release(): void {
  releaseHeap()
  releaseFiles()
}

/** Hears of the start, which takes memory that nothing else needs, and how many leases each batch had. */
export class AfterBurst {
  #timer: NodeJS.Timeout | undefined
  readonly #release: () => void

  constructor(whatTo: () => void = release) {
    this.#release = whatTo
  }

  started(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#release, REST).unref()
  }

  heard(leases: number): void {
    if (leases >= BURST) this.started()
  }
}
