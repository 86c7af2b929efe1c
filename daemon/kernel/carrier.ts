// Waiting for links to work: the kernel hands a carrier on in a worker of its own, after the request that set the other end up was answered.

import type { RequestSocket } from './netlink/requests.ts'
import { pollUntil } from './poll.ts'

/** Milliseconds for which one who waits alone looks in every turn of the event loop. The worker needs some 0.1 when it gets a processor at once. */
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
