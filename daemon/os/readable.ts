// Polls a descriptor on libuv's event loop.
import koffi from 'koffi'

/**
 * Calls `ready` while `fd` is readable (level-triggered). Dispose before closing `fd`: libuv must have let go of its
 * number before another file gets it.
 */
export const whileReadable = (fd: number, ready: () => void): Disposable => pollFor(fd, { readable: true }, ready)
/** The same while `fd` can be written to. */
export const whileWritable = (fd: number, ready: () => void): Disposable => pollFor(fd, { writable: true }, ready)

function pollFor(
  fd: number,
  events: { readonly readable?: true; readonly writable?: true },
  ready: () => void
): Disposable {
  const poll = koffi.node.poll(fd, events, ready)
  return {
    [Symbol.dispose]() {
      poll.stop()
      poll.close()
    }
  }
}
