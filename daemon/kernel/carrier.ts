// Waits for a link's carrier, which the kernel sets in a worker after it has acknowledged the request that brought the
// other end up.
import type { RequestSocket } from './netlink/request-socket.ts'
import { pollUntil } from './poll.ts'

/**
 * Milliseconds of eager polling for a single waiter. The worker needs about 0.1 ms when it gets a processor at once.
 */
const EAGER_MS = 2

export class Carriers {
  readonly #socket: Pick<RequestSocket, 'runs'>
  #waiting = 0

  constructor(socket: Pick<RequestSocket, 'runs'>) {
    this.#socket = socket
  }

  /** See Kernel.runs. */
  async runs(device: string, milliseconds: number): Promise<boolean> {
    if (this.#socket.runs(device)) return true
    this.#waiting++
    try {
      return await pollUntil(() => this.#socket.runs(device), this.#waiting === 1 ? EAGER_MS : 0, milliseconds)
    } finally {
      this.#waiting--
    }
  }
}
