// Work that is done at intervals until a signal.

/** Rejects with the signal, and with what `work` throws. An iterator of timers/promises costs twice as much a turn. */
export function every(milliseconds: number, work: () => void | Promise<void>, signal: AbortSignal): Promise<never> {
  const { promise, reject } = Promise.withResolvers<never>()
  let isBusy = false
  const run = async () => {
    if (isBusy) return
    isBusy = true
    try {
      await work()
    } catch (error) {
      reject(error)
    } finally {
      isBusy = false
    }
  }
  const timer = setInterval(run, milliseconds)
  timer.unref()
  const stop = () => reject(signal.reason)
  if (signal.aborted) stop()
  else signal.addEventListener('abort', stop, { once: true })
  promise.catch(() => clearInterval(timer))
  return promise
}
