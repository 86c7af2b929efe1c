// Polls a descriptor on libuv's event loop.
import koffi from 'koffi'

/**
 * Calls `ready` while `fd` is readable (level-triggered). Dispose before closing `fd`: libuv must have let go of its
 * number before another file gets it.
 */
export const whileReadable = (fd: number, ready: () => void): Disposable => pollFor(fd, { readable: true }, ready)
/** The same while `fd` can be written to. */
export const whileWritable = (fd: number, ready: () => void): Disposable => pollFor(fd, { writable: true }, ready)

/**
 * Polls by one of these, with `ready` in a turn of the event loop of its own and never after disposal: promises that a
 * callback of koffi's settles wait for the next turn.
 */
export function inOwnTurns(poll: typeof whileReadable, fd: number, ready: () => void): Disposable {
  let isOver = false
  const polled = poll(fd, () => setImmediate(() => isOver || ready()))
  return {
    [Symbol.dispose]() {
      isOver = true
      polled[Symbol.dispose]()
    }
  }
}

function pollFor(
  fd: number,
  events: { readonly readable?: true; readonly writable?: true },
  ready: () => void
): Disposable {
  // libuv stops polling a descriptor that has an error, such as a netlink socket that overran, and says so once. The
  // error is over when `ready` has read it. koffi hands over libuv's status first, which its types do not say.
  const onPoll = (status: unknown): void => {
    if (typeof status === 'number' && status < 0) poll.start(events, onPoll)
    ready()
  }
  const poll = koffi.node.poll(fd, events, onPoll)
  return {
    [Symbol.dispose]() {
      poll.stop()
      poll.close()
    }
  }
}
