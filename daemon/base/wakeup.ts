// Wakes whoever waits for a change of state; any number of notifications before they run again count as one.

/**
 * A condition variable. It keeps no state of its own: take `next()` before reading the state that it is about, or read
 * and wait without an `await` in between; then no change is missed. Several may wait at once.
 */
export class Wakeup {
  readonly #waiters = new Set<() => void>()

  notify(): void {
    for (const wake of this.#waiters) wake()
  }

  /**
   * Resolves with the next `notify()` after this call, or once one of the signals has aborted. `AbortSignal.timeout`
   * makes it a wait with a deadline.
   */
  next(...until: readonly AbortSignal[]): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    if (until.some(({ aborted }) => aborted)) {
      resolve()
      return promise
    }
    const wake = () => {
      this.#waiters.delete(wake)
      for (const signal of until) signal.removeEventListener('abort', wake)
      resolve()
    }
    this.#waiters.add(wake)
    for (const signal of until) signal.addEventListener('abort', wake)
    return promise
  }
}
