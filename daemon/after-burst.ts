// Memory goes back to the system when thousands of leases have been worked off: what V8 took for them it would keep for days.
import { releaseFiles, releaseHeap } from './kernel/resident.ts'

/** Leases in one batch from which it is a burst. Fewer leave a megabyte or two. */
const BURST = 500
/** Milliseconds of rest after a burst: the kernel's notifications of it are read by then. */
const REST = 2_000

/** Gives back at once what only the start needed. */
export function releaseStart(): void {
  releaseHeap()
  releaseFiles()
}

/** Hears how many leases each batch had. */
export class AfterBurst {
  #timer: NodeJS.Timeout | undefined
  readonly #release: () => void

  constructor(release: () => void = releaseStart) {
    this.#release = release
  }

  heard(leases: number): void {
    if (leases < BURST) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#release, REST).unref()
  }
}
