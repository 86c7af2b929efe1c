// Returns memory to the system after the start and after thousands of leases at once: V8 would keep it for days.
import { releaseFiles, releaseHeap } from './resident.ts'

/** Leases in one batch that count as a burst. Fewer leave a megabyte or two. */
const BURST = 500
/** Milliseconds after a burst: the kernel's notifications of it are read by then. */
const REST = 2_000

function release(): void {
  releaseHeap()
  releaseFiles()
}

/** Called after the start, which takes memory that nothing else needs, and with the size of each batch. */
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
