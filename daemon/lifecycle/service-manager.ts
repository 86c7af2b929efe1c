// Tells the service manager when this node is ready and what it waits for (sd_notify(3)): `systemctl start` returns,
// and units ordered after weftd such as Docker start, once subnet.env is written and the socket serves.
import { reasonOf } from '../base/error.ts'
import type { Log } from '../base/log.ts'
import { shortened } from '../base/printable.ts'
import type { Condition } from '../health/conditions.ts'
import type { Health } from '../health/health.ts'
import { sendDatagram } from '../os/unix-socket.ts'

export type ServiceManagerDeps = {
  /** $NOTIFY_SOCKET: a path, or a name of the abstract namespace with `@`. Unset outside a service manager. */
  readonly address: string | undefined
  readonly health: Pick<Health, 'listen' | 'active' | 'blocking'>
  readonly log: Log
  /** In tests another. */
  readonly send?: (address: string, text: string) => boolean
}

/** Characters of a status line; `systemctl status` cuts it at the terminal's width. */
const LONGEST = 400
/** Milliseconds until READY=1 is sent again to a full queue. */
const AGAIN = 100

export class ServiceManager {
  readonly #deps: ServiceManagerDeps
  #hasJoined = false
  #isReady = false
  #status = ''
  #timer: NodeJS.Timeout | undefined

  constructor(deps: ServiceManagerDeps) {
    this.#deps = deps
    deps.health.listen(() => this.#update())
  }

  /** Pods can be served, with a lease from the store or a remembered one, and the socket is open. */
  joined(): void {
    this.#hasJoined = true
    this.#update()
  }

  stopping(): void {
    this.#send('STOPPING=1\nSTATUS=stopping; routes and pods stay as they are')
  }

  #update(): void {
    const { health } = this.#deps
    const missing = health.active().find(({ code }) => code === 'SUBNET_FILE_UNWRITABLE')
    if (!this.#hasJoined || (missing !== undefined && !this.#isReady)) {
      this.#report(`waiting: ${lineOf(health.blocking('add') ?? missing)}`)
      return
    }
    const [first] = health.active()
    const status = first === undefined ? 'ready' : `ready; ${lineOf(first)}`
    // Once in the life of the process; later the status alone changes.
    if (!this.#isReady) {
      this.#isReady = this.#send(`READY=1\nSTATUS=${status}`)
      if (this.#isReady) this.#status = status
      else this.#again()
    } else this.#report(status)
  }

  /** A full queue must not keep `systemctl start` waiting for the next condition. */
  #again(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#update(), AGAIN).unref()
  }

  #report(status: string): void {
    if (status !== this.#status && this.#send(`STATUS=${status}`)) this.#status = status
  }

  /** Without a service manager everything counts as sent. */
  #send(text: string): boolean {
    const { address, log, send = sendDatagram } = this.#deps
    if (address === undefined || address === '') return true
    try {
      return send(address, text)
    } catch (error) {
      log.warn({ address, reason: reasonOf(error) }, 'the service manager cannot be notified')
      return true
    }
  }
}

/** One line, as the protocol wants it: Health has made the detail printable. */
function lineOf(condition: Condition | undefined): string {
  if (condition === undefined) return 'for a subnet'
  return shortened(`${condition.code}: ${condition.title}: ${condition.detail}`, LONGEST)
}
