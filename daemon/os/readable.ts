// Polls a descriptor on libuv's event loop.
import koffi from 'koffi'

/**
 * Calls `ready` while `fd` is readable (level-triggered). Dispose before closing `fd`: libuv must have let go of its
 * number before another file gets it.
 */
export function whileReadable(fd: number, ready: () => void): Disposable {
  const poll = koffi.node.poll(fd, { readable: true }, ready)
  return {
    [Symbol.dispose]() {
      poll.stop()
      poll.close()
    }
  }
}
